"""Phones for the tests of this folder; they are made for those that ask for one."""

import subprocess
from pathlib import Path

import pytest

from latency.installing import install
from latency.native_runner import source_folder
from tests.latency.phones import TestPhone, adb_server, bundle_for


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with adb_server(tmp_path_factory.mktemp("adb")):
        yield


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("native") / "runner"
    subprocess.run(["cc", "-O2", "-o", path, source_folder() / "runner.c", "-ldl", "-lm"], check=True)
    return path


@pytest.fixture(scope="module")
def phone(server, runner, tmp_path_factory):
    phone = TestPhone(tmp_path_factory.mktemp("phone"))
    install(phone.shell, lambda abi: bundle_for(abi, runner), name="test")
    yield phone
    phone.kill()


@pytest.fixture(scope="module")
def bare(server, tmp_path_factory):
    """A phone without a runtime."""
    phone = TestPhone(tmp_path_factory.mktemp("bare"))
    yield phone
    phone.kill()


@pytest.fixture(autouse=True)
def as_it_was(request):
    yield
    for name in {"phone", "bare"} & set(request.fixturenames):
        phone = request.getfixturevalue(name)
        phone.tell()
        phone.shell.reconnect()  # a new adb server knows none

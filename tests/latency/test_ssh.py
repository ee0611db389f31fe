import multiprocessing
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from latency import holder, remote
from latency.address import SshAddress
from latency.device import Device
from latency.errors import DeviceError, DeviceUnreachable, ModelError
from latency.profiling import profile_target, read_measurements
from latency.samples import varied_architectures
from latency.settings import Effort
from latency.ssh import SshShell, ssh_device
from latency.target import load_target
from searchspace.architecture import lower
from tests.latency.device_conformance import QUICK, SETTINGS, DeviceConformance
from tests.latency.models import small_model
from tests.latency.sshd import Sshd, open_sshd
from tests.latency.turns import assert_they_take_turns


@pytest.fixture(scope="module", autouse=True)
def own_locks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Sshd]:
    started = open_sshd(tmp_path_factory.mktemp("sshd"))
    yield started
    started.cut()


class TestSsh(DeviceConformance):
    @pytest.fixture
    def device(self, server) -> Device:
        return ssh_device("board", server.address)


def test_arguments_arrive_as_they_are(server):
    shell = SshShell(server.address)
    odd = ["a b", "$HOME", "'", '"', "`id`", "*", "", "ä\n", "-n", "; exit 3"]
    done = shell.run(["sh", "-c", 'printf "%s|" "$@"', "sh", *odd])
    assert (done.code, done.stdout.decode()) == (0, "|".join(odd) + "|")


def test_files_arrive_as_they_are_and_their_folder_goes(server):
    shell = SshShell(server.address)
    content = bytes(range(256)) * 1000
    folder = shell.put({"it's a file": content, "empty": b""})
    assert shell.run(["cat", f"{folder}/it's a file"]).stdout == content
    shell.remove(folder)
    assert shell.run(["test", "-e", folder]).code == 1
    with pytest.raises(DeviceError, match=r"files cannot be written to .* there"):
        SshShell(replace(server.address, folder="/proc")).put({"file": content})


def test_nothing_is_left_behind(server):
    device = ssh_device("board", server.address)
    device.measure([small_model()], settings=SETTINGS, effort=QUICK)
    with pytest.raises(DeviceError):
        device.optimize(b"no model", settings=SETTINGS)
    assert not list(server.jobs.glob("pocketnas-job-*"))


def test_a_connection_that_breaks_is_made_again_and_no_slice_is_lost(server):
    device = ssh_device("board", server.address)
    seen = []

    def cut_once(index, part):
        seen.append(part)
        if len(seen) == 3:
            server.cut()
            threading.Timer(0.5, server.start).start()

    heard = []
    effort = Effort(
        processes=1, slices=100, tolerance=1.0, limit_s=20.0
    )  # longer than what is on the way when it is cut
    with device.reserve("profiling", on_wait=heard.append):
        [timing] = device.measure([small_model()], settings=SETTINGS, effort=effort, on_slice=cut_once)
    assert heard[0].startswith("ssh board: ") and heard[0].endswith("(next attempt in 1 s)")
    assert timing.slices == tuple(seen)
    assert len(timing.slices) >= 3 + effort.slices
    assert len({part.process for part in timing.slices}) >= 2


@pytest.mark.slow
def test_profiling_stops_with_the_reason_and_goes_on_later(server, tmp_path, monkeypatch):
    monkeypatch.setattr("latency.profiling.JOB", 6)
    target = load_target(server.target_file(tmp_path / "board.yaml"))

    def profile(device, networks, on_progress=None):
        return profile_target(
            target,
            (one for one in varied_architectures(3) if lower(one).macs < 5e6 and lower(one).params < 2e5),
            networks=networks,
            device=device,
            effort=replace(QUICK, limit_s=0.1),
            folder=tmp_path,
            on_progress=on_progress,
        )

    device = target.open()
    device._waits_s = (0.01,)
    try:
        with pytest.raises(DeviceUnreachable, match=r"Connection refused.*given up after 2 attempts"):
            profile(device, 12, on_progress=lambda state: state.networks and server.cut())
    finally:
        server.start()
    [log] = tmp_path.glob("board-*.jsonl")
    kept = [one.architecture.fingerprint for one in read_measurements(log)]
    assert len(kept) == 6
    with suppress(ModelError):  # a busy machine leaves too few stable ones to fit
        profile(device, 12)
    measured = [one.architecture.fingerprint for one in read_measurements(log)]
    assert measured[:6] == kept
    assert len(set(measured)) == 12


def test_a_device_that_stays_away_is_given_up(server):
    device = ssh_device("board", server.address)
    device._waits_s = (0.01, 0.01)
    device.describe()
    server.cut()
    try:
        with pytest.raises(DeviceUnreachable, match=r"Connection refused.*given up after 3 attempts"):
            device.optimize(small_model(), settings=SETTINGS)
        with pytest.raises(DeviceUnreachable) as again:
            device.optimize(small_model(), settings=SETTINGS)
        assert "attempts" not in str(again.value)
    finally:
        server.start()
    assert device.optimize(small_model(), settings=SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"python": "/nowhere/python"}, "needs python3 with numpy and onnxruntime, but '/nowhere/python' is not found"),
        ({"folder": "/proc"}, "cannot be opened"),
        ({"key": "/nowhere/key"}, "`device: key` must name a file, got /nowhere/key"),
        ({"address": "-oProxyCommand=touch /tmp/x"}, "hostname contains invalid characters"),
        ({"address": "no.such.host.invalid"}, "Could not resolve hostname"),
        ({"port": 1}, "Connection refused"),
    ],
)
def test_bad_addresses_are_one_line_at_once(server, changes, message):
    with pytest.raises(DeviceError) as caught:
        ssh_device("board", replace(server.address, **changes)).describe()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_without_the_runtime_says_how_to_install_it(server, tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{server.address.python}" -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(DeviceError, match=r"has no onnxruntime: run `.* -m pip install numpy onnxruntime` there"):
        ssh_device("board", replace(server.address, python=str(bare))).describe()


def test_a_key_that_is_not_accepted(server, tmp_path):
    server.make_key("other_key")
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace("user_key", "other_key"))
    with pytest.raises(DeviceError, match=r"refuses the keys it was offered.*ssh-copy-id"):
        ssh_device("board", replace(server.address, config=str(config))).describe()


def test_host_keys_are_verified(server):
    public = (server.folder / "host_key.pub").read_text()
    try:
        server.know("")
        with pytest.raises(DeviceError, match=r"host key must be known, and is not yet: run `ssh .* board` once"):
            ssh_device("board", server.address).describe()
        server.make_key("other_key")
        server.know((server.folder / "other_key.pub").read_text())
        with pytest.raises(DeviceError, match=r"must be the one it had before") as changed:
            ssh_device("board", server.address).describe()
        [forget] = re.findall(r"`(ssh-keygen .*?)`", str(changed.value))
        subprocess.run(shlex.split(forget), check=True, capture_output=True)  # does what it is said to do
        with pytest.raises(DeviceError, match=r"host key must be known, and is not yet"):
            ssh_device("board", server.address).describe()
    finally:
        server.know(public)


def test_machines_take_turns_on_one_device(server, tmp_path):
    """Two processes that share no lock of their own, as on two machines: their slices do not mix."""
    assert_they_take_turns(_measure, server.address, tmp_path)


def _measure(address: SshAddress, log: str, runtime: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", runtime)

        def note(index, part):
            with Path(log).open("a") as file:
                file.write(f"{runtime}\n")

        effort = Effort(processes=2, slices=8, tolerance=1.0, limit_s=0.3)
        ssh_device("board", address).measure([small_model()], settings=SETTINGS, effort=effort, on_slice=note)


def test_the_waiting_one_hears_who_has_it_and_gets_it_when_the_holder_dies(server, tmp_path, monkeypatch):
    context = multiprocessing.get_context("spawn")
    reserved = context.Event()
    other = context.Process(target=_reserve, args=(server.address, str(tmp_path / "other"), reserved))
    other.start()
    assert reserved.wait(60)
    heard = []

    def on_wait(who):
        heard.append(who)
        other.kill()

    device = ssh_device("board", server.address)
    with device.reserve("searching", on_wait=on_wait):
        assert device.optimize(small_model(), settings=SETTINGS)
    assert len(heard) == 1
    assert f"process {other.pid}, profiling" in heard[0]
    other.join()


def _reserve(address, runtime, reserved) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", runtime)
        source = Path(holder.__file__).read_text(encoding="utf-8")
        patient = source.replace("SILENCE_S = 30.0", "SILENCE_S = 1e9")  # so that only its death frees the lock
        assert patient != source
        hold = remote.PythonRemote._holder
        patch.setattr(
            remote.PythonRemote,
            "_holder",
            lambda self, who: [patient if part == source else part for part in hold(self, who)],
        )
        device = ssh_device("board", address)
        with device.reserve("profiling"):
            device.optimize(small_model(), settings=SETTINGS)
            reserved.set()
            time.sleep(600)


def test_who_has_no_name_is_told_by_number(monkeypatch):
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert remote._user() == f"user {os.getuid()}"

"""`nas` in an empty folder with a small network in it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nas.cli.shell import Shell
from tests.nas.learning import small


@pytest.fixture
def nas(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = signal.getsignal(signal.SIGTERM)
    Path("small.json").write_text(small().to_json())
    yield Shell(capsys, monkeypatch)
    signal.signal(signal.SIGTERM, before)

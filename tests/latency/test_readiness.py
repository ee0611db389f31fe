"""What is said of targets whose devices are in use, or are not there."""

import shutil
from pathlib import Path

import pytest

from latency import adb
from latency.errors import DeviceBusy
from latency.lock import DeviceLock, unless_taken
from latency.profiling import profile_target
from latency.readiness import every_readiness, pixel_readiness, readiness
from latency.target import Target, known_targets, load_target


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETNAS_LOCKS", str(tmp_path))


@pytest.fixture
def board(tmp_path: Path) -> Target:
    """A board that is never reached: whoever asks for it in these tests meets its lock before."""
    path = tmp_path / "board.yaml"
    path.write_text("name: board\ndevice: {kind: ssh, address: board.invalid}\n")
    return load_target(path)


def test_a_device_in_use_is_said_to_be_and_not_waited_for(board):
    with DeviceLock("ssh board.invalid").held("profiling board"):
        found = readiness(board)
    assert not found.ready
    assert "board must be waited for: process " in found.reason
    assert "profiling board" in found.reason


def test_a_host_without_a_model_is_said_to_be_profiled_on_first_use(tmp_path):
    found = readiness(load_target("host"), folder=tmp_path)
    assert not found.ready
    assert "run `nas profile --target host` (`nas search` and `nas netadapt` profile it on first use" in found.reason


def test_profiling_says_whom_it_waits_for_before_it_asks_the_device_anything(board):
    with DeviceLock("ssh board.invalid").held("searching"), pytest.raises(DeviceBusy, match=r"process \d+, searching"):
        profile_target(board, [], on_wait=unless_taken("board"))


@pytest.mark.parametrize(
    ("phones", "reason"),
    [
        ((), "no Pixel phone is attached and ready (there are: none): switch on USB debugging"),
        ((adb.Attached("A1", "unauthorized", ""),), "(there are: A1 (unauthorized))"),
        ((adb.Attached("B2", "device", "SM_G991B"),), "another phone takes a target file with `device: {kind: adb}`"),
        (
            (adb.Attached("C3", "device", "Pixel_8"),),
            "there is no runtime on C3 yet: run `nas targets install pixel --build`",
        ),
    ],
)
def test_pixel_says_for_what_it_stands_and_why(monkeypatch, phones, reason):
    monkeypatch.setattr(adb, "attached", lambda: phones)
    monkeypatch.setattr(adb, "installed_pixels", lambda folder: ())
    found = pixel_readiness()
    assert (found.name, found.basis, found.ready) == ("pixel", "published", True)
    assert found.reason.startswith("stands for pixel6, because ")
    assert reason in found.reason


def test_pixel_is_listed_with_the_shipped_targets_also_without_adb(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert shutil.which("adb") is None
    *others, last = every_readiness()
    assert "apt install adb" in last.reason
    assert [*(one.name for one in others), last.name] == [*known_targets(), "pixel"]

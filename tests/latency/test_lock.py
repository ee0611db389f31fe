import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from latency.errors import DeviceError
from latency.lock import POLL_S, DeviceLock

HOLD = (
    "import sys, time; from latency.lock import DeviceLock\n"
    "with DeviceLock('d').held('profiling'):\n    print('held', flush=True); time.sleep(600)\n"
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETNAS_LOCKS", str(tmp_path))


@pytest.fixture
def other():
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_waiting_one_hears_who_has_it_and_gets_it_when_the_holder_is_killed(other):
    lock = DeviceLock("d")
    heard = []

    def on_wait(holder):
        heard.append(holder)
        other.send_signal(signal.SIGKILL)

    with lock.held("searching", on_wait=on_wait):
        assert heard == [f"process {other.pid}, profiling"]
        assert DeviceLock("d").holder() == f"process {os.getpid()}, searching"
    assert lock.holder() is None


def test_devices_of_other_names_are_free(other):
    with DeviceLock("e").held("measuring", on_wait=pytest.fail):
        assert DeviceLock("d").holder() == f"process {other.pid}, profiling"


def test_an_error_inside_releases_it():
    with pytest.raises(RuntimeError), DeviceLock("d").held("measuring"):
        raise RuntimeError
    assert DeviceLock("d").holder() is None


def test_the_inner_of_two_does_not_release_the_outer():
    lock = DeviceLock("d")
    with lock.held("outer"):
        with lock.held("inner"):
            pass
        assert DeviceLock("d").holder() == f"process {os.getpid()}, outer"
    assert DeviceLock("d").holder() is None


def test_names_cannot_leave_the_folder(tmp_path):
    assert DeviceLock("../../etc/passwd").path.parent == tmp_path


def test_all_sessions_of_a_machine_have_the_same_locks(monkeypatch, tmp_path):
    monkeypatch.delenv("POCKETNAS_LOCKS")
    before = DeviceLock("d").path
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    assert DeviceLock("d").path == before == Path("/tmp/pocketnas-devices/d.lock")


def test_the_folder_and_its_locks_are_for_all_users(monkeypatch, tmp_path):
    monkeypatch.setenv("POCKETNAS_LOCKS", str(tmp_path / "devices"))
    with DeviceLock("d").held("measuring"):
        assert stat.S_IMODE((tmp_path / "devices").stat().st_mode) == 0o1777
        for name in ("d.lock", "d.queue"):
            assert stat.S_IMODE((tmp_path / "devices" / name).stat().st_mode) == 0o666


@pytest.mark.parametrize("made", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo, Path.mkdir])
def test_what_somebody_left_in_place_of_a_lock_is_not_used(tmp_path, made):
    before = Path("/etc/passwd").read_bytes()
    made(tmp_path / "d.lock")
    with pytest.raises(DeviceError, match="cannot be made"), DeviceLock("d").held("measuring"):
        pass
    assert Path("/etc/passwd").read_bytes() == before


def test_a_folder_that_is_a_link_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv("POCKETNAS_LOCKS", str(tmp_path / "link"))
    with pytest.raises(DeviceError, match="cannot be made"), DeviceLock("d").held("measuring"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_waits_and_hears_who_has_it(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("POCKETNAS_LOCKS", f"{folder}/devices")
        Path(folder).chmod(0o755)
        with DeviceLock("d").held("profiling"):
            Path(folder, "devices", "d.lock").chmod(0o644)  # as a version that made it so
            os.seteuid(65534)
            try:
                assert DeviceLock("d").holder() == f"process {os.getpid()}, profiling"
            finally:
                os.seteuid(0)
        os.seteuid(65534)
        try:
            with DeviceLock("d").held("measuring", on_wait=pytest.fail):
                pass
        finally:
            os.seteuid(0)


def test_a_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("POCKETNAS_LOCKS", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="cannot be made"), DeviceLock("d").held("measuring"):
        pass


def test_what_computes_lets_the_one_that_measures_go_first_and_stands_still_meanwhile(tmp_path):
    steps, done = tmp_path / "steps", tmp_path / "done"
    steps.write_text("0")
    measuring = multiprocessing.get_context("spawn").Process(target=_measure, args=(str(steps), str(done)))
    heard = []
    with DeviceLock("d").shared("training", on_wait=heard.append) as give_way:
        measuring.start()
        number = 0
        while measuring.is_alive():
            give_way()
            number += 1
            steps.write_text(str(number))
        assert done.read_text() == "stood still"
        assert heard == [f"process {measuring.pid}, measuring"]
        assert DeviceLock("d").holder() == f"process {os.getpid()}, training"
    measuring.join()
    assert DeviceLock("d").holder() is None


def test_those_that_compute_do_not_wait_for_each_other():
    with (
        DeviceLock("d").shared("training", on_wait=pytest.fail) as one,
        DeviceLock("d").shared("training", on_wait=pytest.fail) as other,
    ):
        one()
        other()


def test_computing_waits_for_the_one_that_measures(other):
    with DeviceLock("d").shared("training", on_wait=lambda holder: other.kill()):
        assert DeviceLock("d").holder() == f"process {os.getpid()}, training"


def _measure(steps: str, done: str) -> None:
    with DeviceLock("d").held("measuring"):
        before = Path(steps).read_text()
        time.sleep(3 * POLL_S)
        after = Path(steps).read_text()
    Path(done).write_text("stood still" if before == after else f"went from {before} to {after}")


def test_taking_turns_excludes(tmp_path):
    """Three processes add to a number in a file, each in two steps: none is lost only if they take turns."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_add, args=(str(counter), 25)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert counter.read_text() == "75"


def _add(path: str, times: int) -> None:
    for _ in range(times):
        with DeviceLock("d").held("adding"):
            number = int(Path(path).read_text())
            Path(path).write_text(str(number + 1))

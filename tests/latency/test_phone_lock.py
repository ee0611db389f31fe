"""The lock that lies on a phone, run by this machine's shell."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from latency.phone_lock import hold_command


class Holder:
    """A process that waits for the lock or has it."""

    def __init__(self, folder: Path, who: str, *, silence: int) -> None:
        self.process = subprocess.Popen(
            hold_command(str(folder), who, silence=silence),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def beat(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(".\n")
        self.process.stdin.flush()

    def leave(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(30)


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[list[Holder]]:
    started: list[Holder] = []
    yield started
    for one in started:
        one.process.kill()
        one.process.wait()
        for stream in (one.process.stdin, one.process.stdout, one.process.stderr):
            with contextlib.suppress(OSError):  # what was not read any more
                stream.close()


@pytest.fixture
def start(tmp_path: Path, holders: list[Holder]):
    def start(who: str, *, silence: int = 30) -> Holder:
        holders.append(Holder(tmp_path / "pocketnas", who, silence=silence))
        return holders[-1]

    return start


def lock(tmp_path: Path) -> Path:
    return tmp_path / "pocketnas" / "pocketnas.lock"


def test_the_waiting_one_hears_who_has_it_and_gets_it_when_that_one_leaves(start, tmp_path):
    first = start("ann@a, process 1, profiling")
    assert first.line() == "held"
    second = start("bob@b, process 2, searching")
    assert second.line().startswith("waiting ann@a, process 1, profiling, since ")
    assert first.leave() == 0
    assert second.line() == "held"
    assert (lock(tmp_path) / "who").read_text().startswith("bob@b, process 2, searching, since ")
    assert second.leave() == 0
    assert not lock(tmp_path).exists()


def test_a_holder_that_is_hung_up_on_leaves_no_lock(start, tmp_path):
    first = start("ann")
    assert first.line() == "held"
    first.process.terminate()
    first.process.wait(30)
    assert not lock(tmp_path).exists()


def test_the_lock_of_a_dead_holder_is_broken_but_not_that_of_one_that_lives(start, tmp_path):
    first = start("ann")
    assert first.line() == "held"
    first.process.kill()  # leaves its lock
    first.process.wait(30)
    assert lock(tmp_path).exists()
    second = start("bob", silence=2)
    assert second.line().startswith("waiting ann")
    assert second.line() == "held"
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(0.3):
            second.beat()

    living = threading.Thread(target=live)
    living.start()
    third = start("eve", silence=3)
    assert third.line().startswith("waiting bob")
    with pytest.raises(subprocess.TimeoutExpired):
        third.process.wait(5)  # would have it after 3 seconds if nobody lived
    assert (lock(tmp_path) / "who").read_text().startswith("bob")
    stop.set()
    living.join()
    assert second.leave() == 0
    assert third.line() == "held"


def test_who_has_lost_it_ends_and_leaves_it_to_the_other(start, tmp_path):
    first = start("ann")  # hangs from now on
    assert first.line() == "held"
    second = start("bob", silence=1)
    assert second.line().startswith("waiting ann")
    assert second.line() == "held"
    first.beat()
    assert first.process.wait(30) == 1
    assert (lock(tmp_path) / "who").read_text().startswith("bob")


def test_a_place_that_cannot_be_written_is_told(start, tmp_path):
    (tmp_path / "pocketnas").write_text("")
    first = start("ann")
    assert first.process.wait(30) == 1
    assert first.line() == ""

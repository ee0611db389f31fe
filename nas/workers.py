"""Processes side by side that share one piece of work: candidates on all cores or cards of a machine.

Every process runs the same task until nothing is left of it; who does what they settle through the study and the files they
share, so that a process of another machine could join them. Small networks train faster on as many processes as there are cores
than on as many threads; fewer processes divide the cores among them. A process that is killed is replaced and loses what it had
in hand, no more; if their parent goes, however it went, they end.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

import torch

from nas.errors import TrainingError
from searchspace.errors import NasError

LOOK_EVERY_S = 0.5
PATIENCE_S = 10.0  # for a process to put away what it has in hand
REPLACEMENTS = 3  # per process, of those that died


def _unheard(message: str) -> None:
    """What nobody listens to."""


@dataclass(frozen=True)
class Place:
    """Where a process of several computes: its number, counted from 0, its device, and its threads on a CPU.

    What it tells `note` is heard where the processes were started.
    """

    number: int
    device: str
    threads: int = 1
    note: Callable[[str], None] = field(default=_unheard, compare=False, repr=False)


Task = Callable[[Place], None]


def default_processes() -> int:
    """One per card, or where there is none one per core that this process may use."""
    return torch.cuda.device_count() or _cores()


def threads_each(processes: int) -> int:
    """Threads of each of so many processes: its share of the cores, or one where cards do the work."""
    return 1 if torch.cuda.device_count() else max(1, _cores() // processes)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def places(processes: int) -> list[Place]:
    """Places of so many processes: cards in turn, or the CPU with its cores divided among them."""
    cards, threads = torch.cuda.device_count(), threads_each(processes)
    return [Place(number, f"cuda:{number % cards}" if cards else "cpu", threads) for number in range(processes)]


def side_by_side(
    task: Task,
    *,
    processes: int,
    on_look: Callable[[], None],
    on_death: Callable[[int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> None:
    """Run `task` in so many processes until all have returned.

    Args:
        task: what each of them does; it is pickled.
        processes: how many.
        on_look: called twice a second here meanwhile.
        on_death: called with the process id of one that died, before another takes its place.
        on_note: told what they note; of equal notes in a row, such as several processes make of one cause, the first.

    Raises:
        NasError: what a task raised; the other processes are stopped.
        TrainingError: processes were killed again and again.
    """
    context = torch.multiprocessing.get_context("spawn")
    told = ""

    def start(place: Place) -> _Working:
        hearing, telling = context.Pipe(duplex=False)
        process: SpawnProcess = context.Process(target=_work, args=(task, place, telling), daemon=True)
        process.start()
        telling.close()  # here, so that its end is seen when the process ends
        return _Working(process, hearing)

    def listen(to: _Working) -> None:
        nonlocal told
        for message in to.messages():
            if isinstance(message, NasError):
                raise message
            if on_note is not None and message != told:
                told = message
                on_note(message)

    working = {place: start(place) for place in places(processes)}
    deaths = 0
    try:
        while working:
            connection.wait([one.process.sentinel for one in working.values()], timeout=LOOK_EVERY_S)
            for place, one in list(working.items()):
                process, ended = one.process, not one.process.is_alive()
                listen(one)
                if not ended:
                    continue
                del working[place]
                one.hearing.close()
                if process.exitcode == 0:
                    continue
                if process.exitcode is not None and process.exitcode > 0:
                    raise RuntimeError("a process that trains failed; its traceback is above")
                deaths += 1
                if on_death is not None and process.pid is not None:
                    on_death(process.pid)
                if deaths > REPLACEMENTS * processes:
                    raise TrainingError(
                        f"{deaths} of the processes that train side by side were killed (the last by signal "
                        f"{-(process.exitcode or 0)}), perhaps for want of memory; what they finished is kept: "
                        "run the same again with fewer --workers"
                    )
                working[place] = start(place)
            on_look()
    finally:
        _stop([one.process for one in working.values()])


@dataclass(frozen=True)
class _Working:
    """A process, and the end of the pipe that it tells us things through: one for each, which no other can leave locked."""

    process: SpawnProcess
    hearing: Connection

    def messages(self) -> Iterator[str | NasError]:
        """What it has told since."""
        with contextlib.suppress(EOFError, OSError):  # it was killed
            while self.hearing.poll():
                yield self.hearing.recv()


def _stop(processes: list[SpawnProcess]) -> None:
    """Ask processes to end, and end those that do not."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _work(task: Task, place: Place, telling: Connection) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(place.threads)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            task(replace(place, note=telling.send))
        except NasError as error:
            telling.send(error)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)

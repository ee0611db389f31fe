"""Processes side by side that share one piece of work: candidates on all cores or cards of a machine.

Every process runs the same task until nothing is left of it; who does what they settle through the study and the files they
share, so that a process of another machine could join them. Each computes on one thread: small networks train faster on as
many processes as there are cores than on as many threads. A process that is killed is replaced and loses what it had in hand, no
more; if their parent goes, however it went, they end.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch

from nas.errors import TrainingError
from searchspace.errors import NasError

LOOK_EVERY_S = 0.5
PATIENCE_S = 10.0  # for a process to put away what it has in hand
REPLACEMENTS = 3  # per process, of those that died


@dataclass(frozen=True)
class Place:
    """Where a process of several computes: its number, counted from 0, and its device."""

    number: int
    device: str


Task = Callable[[Place], None]


def default_processes() -> int:
    """One per card, or where there is none one per core that this process may use."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def places(processes: int) -> list[Place]:
    """Places of so many processes: cards in turn, or the CPU."""
    cards = torch.cuda.device_count()
    return [Place(number, f"cuda:{number % cards}" if cards else "cpu") for number in range(processes)]


def side_by_side(
    task: Task,
    *,
    processes: int,
    on_look: Callable[[], None],
    on_death: Callable[[int], None] | None = None,
) -> None:
    """Run `task` in so many processes until all have returned.

    Args:
        task: what each of them does; it is pickled.
        processes: how many.
        on_look: called twice a second here meanwhile.
        on_death: called with the process id of one that died, before another takes its place.

    Raises:
        NasError: what a task raised; the other processes are stopped.
        TrainingError: processes were killed again and again.
    """
    context = torch.multiprocessing.get_context("spawn")
    raised: SimpleQueue[NasError] = context.SimpleQueue()

    def start(place: Place) -> SpawnProcess:
        process: SpawnProcess = context.Process(target=_work, args=(task, place, raised), daemon=True)
        process.start()
        return process

    working = {place: start(place) for place in places(processes)}
    deaths = 0
    try:
        while working:
            connection.wait([process.sentinel for process in working.values()], timeout=LOOK_EVERY_S)
            if not raised.empty():
                raise raised.get()
            on_look()
            for place, process in list(working.items()):
                if process.is_alive():
                    continue
                del working[place]
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
        if not raised.empty():
            raise raised.get()
    finally:
        _stop(list(working.values()))


def _stop(processes: list[Any]) -> None:
    """Ask processes to end, and end those that do not."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(PATIENCE_S)
        if process.is_alive():
            process.kill()
            process.join()


def _work(task: Task, place: Place, raised: "SimpleQueue[NasError]") -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            task(place)
        except NasError as error:
            raised.put(error)


def _interrupt(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)

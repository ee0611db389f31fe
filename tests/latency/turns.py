"""Two processes at one device: in which order they took their slices."""

import multiprocessing
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any


def assert_they_take_turns(measure: Callable[[Any, str, str], None], device: Any, folder: Path) -> None:
    """Measures in two processes that share no lock of their own, as on two computers: their slices must not mix.

    Args:
        measure: a module's function that is given the device's address, a file and a folder of its process's own; it appends a
            word of its own to the file at every slice.
        device: the address, which can be pickled.
        folder: for both.
    """
    log = folder / "log"
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=measure, args=(device, str(log), str(folder / f"own{one}"))) for one in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    order = log.read_text().split()
    assert len(set(order)) == 2
    assert sum(before != after for before, after in pairwise(order)) == 1

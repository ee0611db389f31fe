"""Short fine-tunes side by side: a process per core or card, each on one thread, so that their number changes no result.

A result is a checkpoint; one that is there already is not trained again. A worker whose parent is gone, however it went, ends.
"""

import contextlib
import dataclasses
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from latency.host import computing
from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.data import Data
from nas.errors import Diverged, TrainingError
from nas.evaluation import evaluate
from nas.recipe import Recipe
from nas.training import train


@dataclass(frozen=True, kw_only=True)
class Job:
    """One fine-tune.

    Attributes:
        start: the checkpoint it starts from.
        result: where the fine-tuned checkpoint goes.
        recipe: how; None: it is judged as it is.
        seed: of order, augmentation and dropout.
        skip_images: of the endless shuffled stream of training images.
        judge_every: the network is judged on each image of the hold-out split whose position is a multiple of this.
    """

    start: Path
    result: Path
    recipe: Recipe | None
    seed: int
    skip_images: int
    judge_every: int = 1


@dataclass(frozen=True)
class Score:
    """What a network is worth on the hold-out (validation) split: accuracy in [0, 1], mean cross-entropy in nats."""

    accuracy: float
    loss: float


@dataclass
class Tuner:
    """Fine-tunes on one data set, until its `stop` is set; `images` counts those that its jobs are trained on."""

    data: Data
    workers: int
    executor: Executor | None = None
    images: int = 0

    def run(self, jobs: Sequence[Job], *, on_done: Callable[[int], None]) -> list[Score | None]:
        """Scores in the order of the jobs; None for one whose loss became infinite. `on_done` hears how many are done.

        Raises:
            TrainingError: a worker process ended.
        """
        scores: list[Score | None] = [None] * len(jobs)
        self.images += sum(job.recipe.length(len(self.data.train)) for job in jobs if job.recipe)
        if self.executor is None:
            for index, job in enumerate(jobs):
                with one_thread():
                    scores[index] = _tune(job, self.data, device=_devices(1)[0], stop=lambda: False)
                on_done(index + 1)
            return scores
        try:  # one that ended between two calls is noticed where jobs are handed out
            futures = {self.executor.submit(_tune_here, job): index for index, job in enumerate(jobs)}
            for done, future in enumerate(as_completed(futures), start=1):
                scores[futures[future]] = future.result()
                on_done(done)
        except BrokenProcessPool:
            raise TrainingError(
                "a worker process ended, perhaps for want of memory; run the same again with fewer --workers"
            ) from None
        return scores


@contextlib.contextmanager
def open_tuner(data: Data, *, workers: int) -> Iterator[Tuner]:
    """A tuner with that many processes, which end with the ``with``; a single worker needs no process of its own."""
    if workers == 1:
        yield Tuner(data, 1)
        return
    context = torch.multiprocessing.get_context("spawn")
    stop, devices = context.Event(), context.SimpleQueue()
    for device in _devices(workers):
        devices.put(device)
    executor = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(data, devices, stop)
    )
    try:
        yield Tuner(data, workers, executor)
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def default_workers() -> int:
    """One per card, or where there is none one per core."""
    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Worker:
    """What a worker process keeps between jobs."""

    data: Data
    device: str
    stop: Event


def _start_worker(data: Data, devices: "SimpleQueue[str]", stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    torch.set_num_threads(1)
    _Worker.data, _Worker.device, _Worker.stop = data, devices.get(), stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _tune_here(job: Job) -> Score | None:
    return _tune(job, _Worker.data, device=_Worker.device, stop=_Worker.stop.is_set)


def _tune(job: Job, data: Data, *, device: str, stop: Callable[[], bool]) -> Score | None:
    if job.result.exists():
        metrics = load_checkpoint(job.result).metrics
        return Score(metrics["accuracy"], metrics["loss"])
    start, few = load_checkpoint(job.start), _thinned(data, job.judge_every)
    if job.recipe is None:
        with computing("judging a network"):
            judged = evaluate(start.network().to(device), few.validation, few)
        if not math.isfinite(judged.loss):
            return None
        metrics = {"accuracy": judged.accuracy, "loss": judged.loss}
        save_checkpoint(job.result, dataclasses.replace(start, metrics=metrics))
        return Score(judged.accuracy, judged.loss)
    try:
        result = train(
            start,
            few,
            job.recipe,
            seed=job.seed,
            skip_images=job.skip_images,
            device=device,
            stop=stop,
        )
    except Diverged:
        return None
    if not result.finished:
        return None
    metrics = {**result.checkpoint.metrics, "seconds": result.seconds}
    save_checkpoint(job.result, dataclasses.replace(result.checkpoint, metrics=metrics))
    return Score(result.accuracy, result.loss)


def _thinned(data: Data, every: int) -> Data:
    """The data with a part of its hold-out split, of all classes alike in whatever order they lie."""
    if every == 1:
        return data
    return dataclasses.replace(data, validation=data.validation.take(slice(None, None, every)))


def _devices(workers: int) -> list[str]:
    cards = torch.cuda.device_count()
    return [f"cuda:{index % cards}" if cards else "cpu" for index in range(workers)]

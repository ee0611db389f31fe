"""Whatever computes stands still while something is measured on the host."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from latency.host import HOST
from latency.lock import POLL_S, DeviceLock
from nas.checkpoint import Checkpoint, save_checkpoint
from nas.recipe import Recipe
from nas.soft_labels import soft_labels
from nas.teachers import checkpoint_teacher
from nas.threads import fastest_setup
from nas.training import train
from nas.tuning import Job, Tuner
from nas.zero_cost import zero_cost_score
from tests.nas.learning import shapes, small

DATA = shapes()
BRIEF = Recipe(images=16, batch_size=16)


@pytest.fixture(scope="module")
def trained() -> Checkpoint:
    return train(small(), DATA, BRIEF).checkpoint


def judged(start: Checkpoint, folder: Path) -> None:
    save_checkpoint(folder / "start.pt", start)
    job = Job(start=folder / "start.pt", result=folder / "judged.pt", recipe=None, seed=0, skip_images=0)
    Tuner(DATA, 1).run([job], on_done=lambda done: None)


TASKS: dict[str, Callable[[Checkpoint, Path], object]] = {
    "training": lambda start, folder: train(small(), DATA, BRIEF),
    "judging a network": judged,
    "scoring a network": lambda start, folder: zero_cost_score("synflow", small(), DATA),
    "asking a teacher": lambda start, folder: soft_labels(
        checkpoint_teacher(start), DATA, None, replicas=1, folder=folder
    ),
    "looking for the fastest threads": lambda start, folder: fastest_setup(
        small(), Recipe(images=16, batch_size=16, channels_last=None), threads=1
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_it_waits_for_what_is_measured(
    name: str, trained: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETNAS_LOCKS", str(tmp_path / "locks"))
    seen: list[str | None] = []
    monkeypatch.setattr("latency.lock._name", lambda file, purpose: seen.append(purpose))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            TASKS[name](trained, tmp_path)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    with DeviceLock(HOST).held("measuring"):
        thread.start()
        thread.join(3 * POLL_S)
        assert thread.is_alive()
        assert set(seen) == {"measuring"}
    thread.join()
    assert not failures
    assert seen[-1] == name

"""What a process needs to join a search's study, and does there: take candidates, train them briefly, tell how they did."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from latency.errors import UnmeasuredKernel
from nas.candidates import CandidateTrainer
from nas.study import Prediction, Problem, Progress, open_study, run_trials
from nas.workers import Place
from searchspace.architecture import Architecture
from searchspace.space import Space

SEED_STRIDE = 7919  # between the samplers of two processes, which would else draw the same


class Model(Protocol):
    """A latency model, as the search needs it."""

    def predict(self, architecture: Architecture) -> Prediction: ...


@dataclass(frozen=True, kw_only=True)
class StudyWork:
    """A study to work on, as plain data: it can be sent to another process.

    Attributes:
        url: of the Optuna storage.
        name: the study's.
        identity: what is searched; a study of anything else is refused.
        seed: of the sampler.
        space: where candidates come from.
        model: predicts latencies.
        budget_ms: milliseconds a network may take.
        trainer: trains candidates.
        trials: candidates to train, by all processes together.
    """

    url: str
    name: str
    identity: Mapping[str, Any]
    seed: int
    space: Space
    model: Model
    budget_ms: float
    trainer: CandidateTrainer
    trials: int

    def __call__(self, place: Place) -> None:
        """Work on the study as one process of several, until nothing is left to do."""
        trainer = dataclasses.replace(self.trainer, device=place.device)
        work(dataclasses.replace(self, trainer=trainer, seed=self.seed + SEED_STRIDE * (place.number + 1)))


def work(
    on: StudyWork, *, note: Callable[[str], None] | None = None, on_progress: Callable[[Progress], None] | None = None
) -> None:
    """Work on a study in this process, until nothing is left to do."""
    study = open_study(on.url, on.name, seed=on.seed, identity=on.identity)
    problem = Problem(on.space, cautious(on.model, note), on.budget_ms, on.trainer, len(on.trainer.ladder))
    run_trials(study, problem, trials=on.trials, on_progress=on_progress)


@dataclass(frozen=True)
class _Unpredictable:
    """Stands for the latency of a network with a kernel that was never measured: too slow for any budget."""

    ms: float = 1e9
    low_ms: float = 1e9
    high_ms: float = 1e9


def cautious(model: Model, note: Callable[[str], None] | None) -> Callable[[Architecture], Prediction]:
    """The model's predictions; networks with a kernel that was never measured are left out, which is said once for each."""
    told: set[str] = set()

    def predict(architecture: Architecture) -> Prediction:
        try:
            return model.predict(architecture)
        except UnmeasuredKernel as reason:
            if note is not None and str(reason) not in told:
                told.add(str(reason))
                note(f"networks are left out: {reason}")
            return _Unpredictable()

    return predict

"""What a process needs to join a search's study, and does there: take candidates, train them briefly, tell how they did."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import optuna

from latency.errors import UnmeasuredKernel
from nas.candidates import CandidateTrainer
from nas.limits import Limit, Reward, RewardKind
from nas.sampling.candidate_sampler import SamplerName
from nas.sampling.decisions import Decisions
from nas.stages import TwoStages
from nas.storage import failures_told, open_study
from nas.study import Prediction, Problem, Progress, attach_sampler, run_trials
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
        limits: what a network must stay within beside the budget.
        pareto: whether the whole front counts, or only the best within the budget.
        reward: what the best is judged by.
        sampler: which sampler draws the candidates.
        stages: whether depths and widths are searched first and blocks then.
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
    limits: tuple[Limit, ...] = ()
    pareto: bool = False
    reward: RewardKind = "accuracy"
    sampler: SamplerName = "auto"
    stages: bool = False

    def open(self) -> optuna.Study:
        """The study, made if it is not there.

        Raises:
            StudyError: the storage cannot be used, or the study is of something else.
        """
        limits = {"budget_ms": self.budget_ms} | {limit.name: limit.most for limit in self.limits}
        return open_study(self.url, self.name, identity=self.identity, limits=limits, pareto=self.pareto)

    def problem(self, note: Callable[[str], None] | None = None) -> Problem:
        """What the study looks for; `note` is told which networks cannot be predicted."""
        return Problem(
            self.space,
            cautious(self.model, note),
            self.budget_ms,
            self.trainer,
            len(self.trainer.ladder),
            limits=self.limits,
            pareto=self.pareto,
            reward=None if self.pareto else Reward(self.reward, self.budget_ms),
        )

    def __call__(self, place: Place) -> None:
        """Work on the study as one process of several, until nothing is left to do."""
        trainer = dataclasses.replace(self.trainer, device=place.device)
        work(dataclasses.replace(self, trainer=trainer, seed=self.seed + SEED_STRIDE * (place.number + 1)))


@failures_told()
def work(
    on: StudyWork,
    *,
    here: int | None = None,
    note: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> int:
    """Work on a study in this process, until nothing is left to do or `here` candidates are trained; returns how many were."""
    study, problem = on.open(), on.problem(note)
    stages = TwoStages(Decisions.of(on.space), on.trials) if on.stages else None
    attach_sampler(study, problem, on.sampler, seed=on.seed, pins=stages.pins if stages else None)
    return run_trials(study, problem, trials=on.trials, here=here, note=note, on_progress=on_progress)


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

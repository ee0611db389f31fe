"""What a process needs to join a search's study, and does there: take candidates, train them briefly, tell how they did."""

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna

from latency.errors import UnmeasuredKernel
from nas.candidates import CandidateTrainer
from nas.costs import MS, UNKNOWN_MS
from nas.limits import Limit, Reward, RewardKind
from nas.outcomes import Progress
from nas.sampling.candidate_sampler import SamplerName
from nas.sampling.decisions import Decisions
from nas.sampling.history import Seen
from nas.stages import TwoStages
from nas.storage import PLAN, failures_told, open_study
from nas.study import Prediction, Problem, attach_sampler, run_trials
from nas.survey import Answers
from nas.workers import Place
from searchspace.architecture import Architecture
from searchspace.space import Space

SEED_STRIDE = 7919  # between the samplers of two processes, which would else draw the same
Note = Callable[[str], None]


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
        against: names of the front's costs.
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
    against: tuple[str, ...] = (MS,)
    reward: RewardKind = "accuracy"
    sampler: SamplerName = "auto"
    stages: bool = False

    def open(self, on_wait: Note | None = None) -> optuna.Study:
        """The study, made if it is not there; `on_wait` is told when its storage is away.

        Raises:
            StudyError: the storage cannot be used, or the study is of something else.
        """
        limits = {"budget_ms": self.budget_ms} | {limit.name: limit.most for limit in self.limits}
        costs = len(self.against) if self.pareto else 0
        return open_study(self.url, self.name, identity=self.identity, limits=limits, costs=costs, on_wait=on_wait)

    def problem(self, note: Note | None = None) -> Problem:
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
            against=self.against,
        )

    def __call__(self, place: Place) -> None:
        """Work on the study as one process of several, until nothing is left to do.

        That its storage is away it leaves to whoever started it, who waits for it as well.
        """
        trainer = dataclasses.replace(self.trainer, device=place.device)
        seed = self.seed + SEED_STRIDE * (place.number + 1)
        work(dataclasses.replace(self, trainer=trainer, seed=seed), note=place.note)


@failures_told()
def work(
    on: StudyWork,
    *,
    here: int | None = None,
    note: Note | None = None,
    on_wait: Note | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> int:
    """Work on a study in this process, until nothing is left to do or `here` candidates are trained; returns how many were.

    Args:
        on: the study, and what is to be done.
        here: candidates that this process trains at most; None: no limit.
        note: told of training that raised an error, and when the place for checkpoints is away.
        on_wait: told when the storage is.
        on_progress: told where the study stands.
    """
    on = dataclasses.replace(on, trainer=heard(on.trainer, note))
    study, problem = on.open(on_wait), on.problem(note)
    trials, decisions = on.trials, Decisions.of(on.space) if on.stages else None

    def more() -> int:
        nonlocal trials
        trials = wanted(study, trials)
        return trials

    def pins(seen: Sequence[Seen], source: random.Random) -> Answers:
        return {} if decisions is None else TwoStages(decisions, more()).pins(seen, source)

    attach_sampler(study, problem, on.sampler, seed=on.seed, pins=pins)
    return run_trials(
        study,
        problem,
        trials=on.trials,
        here=here,
        more=more,
        note=note,
        on_progress=on_progress,
    )


def wanted(study: optuna.Study, known: int) -> int:
    """How many candidates are wanted now, where `known` were: a search that extends the study publishes more."""
    plan = study.user_attrs.get(PLAN) or {}
    return max(known, int(plan.get("trials", 0)))


def heard(trainer: CandidateTrainer, note: Note | None) -> CandidateTrainer:
    """The trainer, telling `note` when its place for checkpoints is away."""
    if trainer.mirror is None:
        return trainer
    return dataclasses.replace(trainer, mirror=dataclasses.replace(trainer.mirror, on_wait=note))


@dataclass(frozen=True)
class _Unpredictable:
    """Stands for the latency of a network with a kernel that was never measured: too slow for any budget."""

    ms: float = UNKNOWN_MS
    low_ms: float = UNKNOWN_MS
    high_ms: float = UNKNOWN_MS


def cautious(model: Model, note: Note | None) -> Callable[[Architecture], Prediction]:
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

"""What a study holds: how its trials ended, where it stands, and which candidates were trained to the end."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.claims import FAILED
from nas.costs import MS
from nas.sampling.history import CANDIDATE, OUTCOME, RUNGS, told_costs
from searchspace.architecture import Architecture

COMPLETE, PRUNED, INFEASIBLE, DUPLICATE, INTERRUPTED = "complete", "pruned", "infeasible", "duplicate", "interrupted"
REDRAWS, ERROR = "redraws", "error"
ADOPTED = "adopted"  # from which study; and how such trials are counted


@dataclass(frozen=True)
class Tried:
    """A trial that was trained to the last rung.

    `value` is what it was compared by there, None: its accuracy; `predicted` what it costs, by name, none: its milliseconds.
    """

    architecture: Architecture
    accuracy: float
    loss: float
    predicted_ms: float
    low_ms: float
    high_ms: float
    value: float | None = None
    predicted: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def score(self) -> float:
        """What candidates are compared by; more is better."""
        return self.accuracy if self.value is None else self.value

    @property
    def costs(self) -> Mapping[str, float]:
        """What its accuracy is weighed against, by name."""
        return self.costs_at(self.predicted_ms)

    def costs_at(self, ms: float) -> Mapping[str, float]:
        """Its costs if it takes so many milliseconds on the target."""
        return {name: ms if name == MS else amount for name, amount in self.predicted.items()} or {MS: ms}


@dataclass(frozen=True)
class Progress:
    """Where a search stands: `trained` of `wanted` candidates, the best accuracy so far, how trials ended, and all of them."""

    trained: int
    wanted: int
    best: float | None
    outcomes: Mapping[str, int]
    trials: Sequence[FrozenTrial] = field(default=(), repr=False, compare=False)


def progress(study: optuna.Study, wanted: int) -> Progress:
    """Where the study stands."""
    return progress_of(study.get_trials(deepcopy=False), wanted)


def progress_of(trials: Sequence[FrozenTrial], wanted: int) -> Progress:
    """Where a study of these trials stands."""
    outcomes = _outcomes(trials)
    complete = (trial for trial in trials if trial.user_attrs.get(OUTCOME) == COMPLETE)
    best = max((trial.user_attrs[RUNGS][-1]["accuracy"] for trial in complete), default=None)
    return Progress(outcomes[COMPLETE] + outcomes[PRUNED] + outcomes[FAILED], wanted, best, outcomes, trials)


def count_redraws(study: optuna.Study) -> int:
    """How many candidates were drawn again because they were beyond a limit or known, and so cost no trial."""
    return sum(trial.user_attrs.get(REDRAWS, 0) for trial in study.get_trials(deepcopy=False))


def count_outcomes(study: optuna.Study) -> Counter[str]:
    """How many trials ended in each way; one that was killed in the middle counts as interrupted."""
    return _outcomes(study.get_trials(deepcopy=False))


def _outcomes(trials: Sequence[FrozenTrial]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for trial in trials:
        if ADOPTED in trial.user_attrs:
            outcomes[ADOPTED] += 1
        elif trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            outcomes[trial.user_attrs[OUTCOME]] += 1
        elif trial.state == TrialState.FAIL:
            outcome = trial.user_attrs.get(OUTCOME)
            outcomes[outcome if outcome in (FAILED, DUPLICATE) else INTERRUPTED] += 1
    return outcomes


def completed(study: optuna.Study) -> list[Tried]:
    """The candidates that reached the last rung."""
    result = []
    for trial in judged(study):
        if trial.user_attrs[OUTCOME] == COMPLETE:
            candidate, rung = trial.user_attrs[CANDIDATE], trial.user_attrs[RUNGS][-1]
            result.append(
                Tried(
                    Architecture.from_dict(candidate["architecture"]),
                    rung["accuracy"],
                    rung["loss"],
                    candidate["predicted_ms"],
                    candidate["low_ms"],
                    candidate["high_ms"],
                    rung["value"],
                    told_costs(candidate) or {},
                )
            )
    return result


def judged(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials that were trained at least on one rung."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in trials if trial.user_attrs.get(OUTCOME) in (COMPLETE, PRUNED)]

"""What a study knows: its trials as candidates with their scores, those in training included."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from nas.costs import MS
from nas.survey import Answers

OUTCOME, CANDIDATE, RUNGS = "outcome", "candidate", "rungs"
COSTS = "costs"  # of a candidate, by name
GIVEN = "given"  # a network outside of the space, which no decisions give
FEWEST_PAIRS = 5  # candidates that were on a rung and on the last one, to learn how one tells of the other
Array = NDArray[np.float64]
BEFORE = 0.4  # weight of what the last rung but one promised, in what a candidate is taken to have come to: two looks err less
USUAL_SPREAD = 0.03  # of what scores come to, before that is known


@dataclass(frozen=True)
class Seen:
    """A candidate that was trained at least on one rung, or is being trained.

    Attributes:
        fingerprint: of its architecture.
        answers: the decisions that give it; none for a network outside of the space.
        ms: predicted milliseconds.
        scores: on each rung so far, what candidates are compared by.
        finished: whether nobody trains it any more.
        costs: what its accuracy is weighed against on a front; none: its milliseconds.
    """

    fingerprint: str
    answers: Answers
    ms: float
    scores: tuple[float, ...]
    finished: bool
    costs: tuple[float, ...] = ()


def told_costs(candidate: Mapping[str, Any], *, latency: str = "predicted_ms") -> Mapping[str, float] | None:
    """What a candidate's accuracy is weighed against, by name, as its trial tells; None where it tells nothing.

    Args:
        candidate: what the trial says of it.
        latency: key of its milliseconds there, which are its cost where it names no other.
    """
    if latency not in candidate:
        return None
    return candidate.get(COSTS) or {MS: candidate[latency]}


def history(trials: Sequence[FrozenTrial]) -> list[Seen]:
    """The candidates of a study's trials, in their order; each architecture once."""
    seen: dict[str, Seen] = {}
    for trial in trials:
        candidate = trial.user_attrs.get(CANDIDATE)
        if candidate is None:
            continue
        scores = tuple(rung["value"] for rung in trial.user_attrs.get(RUNGS, ()))
        running = trial.state in (TrialState.RUNNING, TrialState.WAITING)
        known = seen.get(candidate["fingerprint"])
        if known is not None and len(known.scores) >= len(scores):
            continue
        seen[candidate["fingerprint"]] = Seen(
            candidate["fingerprint"],
            trial.params,
            candidate["predicted_ms"],
            scores,
            not running,
            tuple((told_costs(candidate) or {}).values()),
        )
    return list(seen.values())


@dataclass(frozen=True)
class Outlook:
    """What scores on a rung say of those on the last one: a line, and how far candidates are from it.

    Attributes:
        offset: the score on the last rung is offset + slope × the score on this one.
        slope: 0 or above.
        spread: standard deviation around it.
    """

    offset: float
    slope: float
    spread: float

    def final(self, score: float) -> float:
        """What is expected on the last rung."""
        return self.offset + self.slope * score


def outlooks(curves: Sequence[Sequence[float]], rungs: int) -> list[Outlook | None]:
    """For each rung but the last its outlook, None where too few candidates went from it to the end."""
    complete = np.array([curve for curve in curves if len(curve) == rungs], dtype=float).reshape(-1, rungs)
    return [outlook(complete[:, rung], complete[:, -1]) for rung in range(rungs - 1)]


def outlook(here: Sequence[float] | Array, last: Sequence[float] | Array) -> Outlook | None:
    """Of candidates' scores on a rung and on the last one; None if there are too few.

    Args:
        here: (n,) scores on the rung.
        last: (n,) those of the same candidates on the last one.
    """
    if len(here) < FEWEST_PAIRS:
        return None
    x, y = np.asarray(here, dtype=float), np.asarray(last, dtype=float)
    variance, together = float(x.var()), float(np.cov(x, y, bias=True)[0, 1])
    slope = max(together / variance, 0.0) if variance > 1e-9 else 0.0
    offset = float(y.mean() - slope * x.mean())
    residual = y - offset - slope * x
    spread = float(np.sqrt((residual**2).sum() / max(len(x) - 2, 1)))
    return Outlook(offset, slope, max(spread, 1e-3))


def expected_finals(seen: Sequence[Seen], rungs: int) -> Mapping[str, tuple[float, float]]:
    """By fingerprint: what a candidate comes to on the last rung, and how unsure that is (0 if it got there).

    A score on the last rung is averaged with what the one before promised: that predicts better than it alone which networks
    do well (record 2026-11-24_sampler_benchmark).
    """
    found = outlooks([one.scores for one in seen if one.finished], rungs)
    finals = {}
    for one in seen:
        if len(one.scores) == rungs:
            promised = found[-1].final(one.scores[-2]) if found and found[-1] is not None else one.scores[-1]
            finals[one.fingerprint] = ((1 - BEFORE) * one.scores[-1] + BEFORE * promised, 0.0)
        elif one.scores:
            outlook = found[len(one.scores) - 1]
            if outlook is None:
                finals[one.fingerprint] = (one.scores[-1], USUAL_SPREAD)
            else:
                finals[one.fingerprint] = (outlook.final(one.scores[-1]), outlook.spread)
    return finals

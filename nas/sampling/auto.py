"""The default sampler: evolution around the front, steered by a surrogate, with latency known exactly beforehand.

A proposal costs no training, so many are made: changed and crossed members of the front, and random networks, all of them within
the limits and new. A Gaussian process that was fitted to what was trained so far (brief scores of stopped candidates count less,
candidates in training as what is expected of them) says what each would add to the front, or to the best accuracy; the best ones
are changed further, and the best of all is tried. A front of several costs is extended at one random weighting of them at a time
(`nas.sampling.pricing`).
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.costs import MS
from nas.limits import Reward
from nas.sampling.acquisition import expected_hypervolume_gain, expected_improvement, staircase
from nas.sampling.decisions import Decisions, Drawn
from nas.sampling.encoding import Encoder
from nas.sampling.history import Seen, expected_finals
from nas.sampling.pricing import draw_pricing
from nas.sampling.surrogate import Surrogate, fit
from searchspace.architecture import Architecture

FEWEST = 6  # trained candidates before the surrogate has a say
ROUNDS = 3  # of changing the best proposals further
OFFSPRING = 80  # proposals in a round
RANDOM_SHARE = 0.25  # of the first round
PARENTS = 12
MOST_CHANGES = 4
FRONT_SHARE = 0.2  # of candidates that are to extend the front although only the best counts
MOST = 400  # trained candidates that the surrogate learns from
REFIT = 1.1  # hyperparameters are found anew once there are so many times as many candidates
Array = NDArray[np.float64]


class Known(Protocol):
    """What is known of a network before it is trained."""

    @property
    def ms(self) -> float: ...
    @property
    def costs(self) -> Mapping[str, float]: ...


class Judge(Protocol):
    """Says what may be proposed."""

    def within(self, drawn: Drawn) -> "Known | None":
        """What is known of a network; None if it is beyond a limit."""

    def is_new(self, drawn: Drawn) -> bool:
        """Whether the study has not met it."""


@dataclass(frozen=True)
class _Proposal:
    drawn: Drawn
    ms: float
    costs: tuple[float, ...]
    row: Array


@dataclass
class AutoSampler:
    """Proposes candidates; see the module.

    Attributes:
        decisions: of the space.
        rungs: of brief training.
        limit_ms: what a network may take.
        pareto: whether the whole front counts, or only the best reward within the limit.
        reward: that counts then.
        against: names of the front's costs.
        limits: what a network may cost at most, by name, where there is a limit beside that on milliseconds.
    """

    decisions: Decisions
    rungs: int
    limit_ms: float
    pareto: bool
    reward: Reward
    against: tuple[str, ...] = (MS,)
    limits: Mapping[str, float] = field(default_factory=dict)
    _encoder: Encoder = field(init=False)
    _rows: dict[str, Array] = field(default_factory=dict)
    _theta: Array | None = None
    _fitted_to: int = 0

    def __post_init__(self) -> None:
        self._encoder = Encoder(self.decisions)

    def propose(
        self, seen: Sequence[Seen], judge: Judge, source: random.Random, pins: Decisions | None = None
    ) -> Drawn:
        """The next candidate.

        Args:
            seen: candidates that were trained or are being trained.
            judge: says what may be proposed, and what it costs.
            source: of chance.
            pins: decisions of which some are settled; None: those of the sampler.
        """
        decisions = pins or self.decisions
        finals = expected_finals(seen, self.rungs)
        if len(finals) < FEWEST:
            return _any(decisions, judge, source)
        known = _telling([one for one in seen if one.fingerprint in finals], finals)
        waiting = [one for one in seen if one.fingerprint not in finals][-MOST:]
        surrogate = self._surrogate(known, waiting, finals)
        within = [one for one in known if one.ms <= self.limit_ms] or known
        expected, _ = surrogate.predict(self._encoded(within))
        floor = float(min(expected))
        limits = {MS: self.limit_ms, **self.limits}
        pricing = draw_pricing(self.against, [one.costs for one in within], limits=limits, source=source)
        prices = [pricing.price(one.costs) for one in within]
        steps = staircase(zip(prices, map(float, expected), strict=True), floor=floor)
        best = max(self.reward.of(float(accuracy), one.ms) for one, accuracy in zip(within, expected, strict=True))

        whole = self.pareto or source.random() < FRONT_SHARE

        def worth(proposals: Sequence[_Proposal]) -> Array:
            mean, spread = surrogate.predict(np.array([one.row for one in proposals]))
            if not whole:
                slope = np.array([self.reward.slope(one.ms) for one in proposals])
                offset = np.array([self.reward.offset(one.ms) for one in proposals])
                return expected_improvement(slope * mean + offset, slope * spread, best)
            price = np.array([pricing.price(one.costs) for one in proposals])
            return expected_hypervolume_gain(mean, spread, price, steps=steps, limit=pricing.limit)

        order = np.argsort(-expected)
        heights = {step.price for step in steps[1:]}
        front = [one.answers for one, price in zip(within, prices, strict=True) if price in heights]
        parents = front + [within[index].answers for index in order[:PARENTS]]
        return self._evolved(parents, worth, decisions, judge, source)

    def _evolved(
        self,
        parents: Sequence[Mapping[str, object]],
        worth: Callable[[Sequence[_Proposal]], Array],
        decisions: Decisions,
        judge: Judge,
        source: random.Random,
    ) -> Drawn:
        best: list[_Proposal] = []
        met: set[Architecture] = set()
        for round_ in range(ROUNDS):
            fresh = list(best)
            for _ in range(OFFSPRING):
                chance = source.random()
                if round_ == 0 and chance < RANDOM_SHARE:
                    drawn = decisions.any(source)
                elif chance < 0.5 and len(parents) > 1:
                    one, other = source.sample(list(parents), 2)
                    drawn = decisions.crossed(one, other, source)
                else:
                    changes = source.randint(1, MOST_CHANGES)
                    drawn = decisions.mutated(source.choice(parents), source, changes=changes)
                if drawn.architecture in met:
                    continue
                met.add(drawn.architecture)
                known = judge.within(drawn)
                if known is not None:
                    row = self._encoder.encode(drawn.architecture, drawn.answers, known.ms)
                    fresh.append(_Proposal(drawn, known.ms, tuple(known.costs.values()), row))
            if not fresh:
                continue
            ranked = np.argsort(-worth(fresh), kind="stable")
            best = [fresh[index] for index in ranked[: 2 * PARENTS]]
            parents = [one.drawn.answers for one in best]
        new = (one.drawn for one in best if judge.is_new(one.drawn))
        return next(new, None) or _any(decisions, judge, source)

    def _surrogate(
        self, known: Sequence[Seen], waiting: Sequence[Seen], finals: Mapping[str, tuple[float, float]]
    ) -> Surrogate:
        """Fitted to what is known; candidates in training are taken to come out as expected."""
        rows = self._encoded(known)
        targets = np.array([finals[one.fingerprint][0] for one in known])
        unsure = np.array([finals[one.fingerprint][1] for one in known])
        groups = self._encoder.groups
        if self._theta is None or len(known) >= REFIT * self._fitted_to:
            surrogate = fit(rows, targets, groups, extra_noise=unsure)
            self._theta, self._fitted_to = surrogate.theta, len(known)
        else:
            surrogate = fit(rows, targets, groups, extra_noise=unsure, theta=self._theta)
        if not waiting:
            return surrogate
        more = self._encoded(waiting)
        believed, _ = surrogate.predict(more)
        return fit(
            np.concatenate((rows, more)),
            np.concatenate((targets, believed)),
            groups,
            extra_noise=np.concatenate((unsure, np.zeros(len(more)))),
            theta=self._theta,
        )

    def _encoded(self, seen: Sequence[Seen]) -> Array:
        for one in seen:
            if one.fingerprint not in self._rows:
                drawn = self.decisions.complete(one.answers, seed=0)
                self._rows[one.fingerprint] = self._encoder.encode(drawn.architecture, drawn.answers, one.ms)
        return np.array([self._rows[one.fingerprint] for one in seen])


def _telling(known: list[Seen], finals: Mapping[str, tuple[float, float]]) -> list[Seen]:
    """What the surrogate is fitted to, whose cost grows with the cube of its size: the best, and the latest of the others."""
    if len(known) <= MOST:
        return known
    best = sorted(known, key=lambda one: -finals[one.fingerprint][0])[: MOST // 2]
    chosen = {one.fingerprint for one in best}
    return best + [one for one in known if one.fingerprint not in chosen][-(MOST - MOST // 2) :]


def _any(decisions: Decisions, judge: Judge, source: random.Random) -> Drawn:
    """A random network that may be proposed; any, if that is not found soon."""
    for _ in range(OFFSPRING):
        drawn = decisions.any(source)
        if judge.within(drawn) is not None and judge.is_new(drawn):
            return drawn
    return drawn

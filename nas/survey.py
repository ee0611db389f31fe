"""What a space can do on a device, asked of the latency model alone: its spread, its fastest network, where a budget lies.

Predictions cost microseconds, so thousands of networks are looked at before one is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.costs import UNKNOWN_MS
from nas.errors import BudgetError
from nas.limits import Limit
from searchspace.architecture import Architecture
from searchspace.sampling import FixedSuggest, RandomSuggest
from searchspace.space import Space

DESCENTS = 8  # of the drawn networks that are best
REDRAWS = 4
Answers = Mapping[str, Any]
Amount = Callable[[Architecture], float]
Milliseconds = Amount


@dataclass(frozen=True)
class Survey:
    """Networks drawn at random, fastest first.

    Attributes:
        latencies_ms: predicted milliseconds, ascending.
        answers: the decisions that gave each.
        within: whether each is within the limits beside the budget.
        fastest_ms: the fastest network found, by changing one decision of the fastest drawn after the other.
    """

    latencies_ms: tuple[float, ...]
    answers: tuple[Answers, ...]
    within: tuple[bool, ...]
    fastest_ms: float

    def quantile_ms(self, share: float) -> float:
        """Milliseconds that this share of the networks stays within; of those within the other limits, where there are any.

        Networks whose latency cannot be predicted do not count.
        """
        known = [(ms, fits) for ms, fits in zip(self.latencies_ms, self.within, strict=True) if ms < UNKNOWN_MS]
        latencies = [ms for ms, fits in known if fits] or [ms for ms, _ in known]
        return latencies[min(int(share * len(latencies)), len(latencies) - 1)]

    def feasible_share(self, budget_ms: float) -> float:
        """Share of the networks that stay within the budget and the other limits."""
        return len(self._fitting(budget_ms)) / len(self.latencies_ms)

    def spread(self, budget_ms: float, count: int) -> list[Answers]:
        """Up to `count` networks within all limits, evenly spread over their ranks in latency, the fastest first."""
        fitting = self._fitting(budget_ms)
        if len(fitting) <= count:
            return fitting
        positions = [round(index * (len(fitting) - 1) / max(count - 1, 1)) for index in range(count)]
        return [fitting[position] for position in positions]

    def _fitting(self, budget_ms: float) -> list[Answers]:
        drawn = zip(self.latencies_ms, self.answers, self.within, strict=True)
        return [answers for ms, answers, fits in drawn if fits and ms <= budget_ms]


class RecordingSuggest:
    """Answers from `given` where it has one that is on offer, else from `source`; keeps what was answered and offered."""

    def __init__(self, source: RandomSuggest, given: Answers | None = None) -> None:
        self._source = source
        self._given = given or {}
        self.answers: dict[str, Any] = {}
        self.offers: dict[str, Sequence[Any]] = {}

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self._answer(name, range(low, high + 1), lambda: self._source.suggest_int(name, low, high)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, choices, lambda: self._source.suggest_categorical(name, choices))

    def _answer(self, name: str, choices: Sequence[Any], draw: Callable[[], Any]) -> Any:
        given = self._given.get(name)
        answer = given if name in self._given and given in choices else draw()
        self.answers[name], self.offers[name] = answer, choices
        return answer


def survey(
    space: Space, milliseconds: Milliseconds, *, limits: Sequence[Limit] = (), samples: int = 2000, seed: int = 0
) -> Survey:
    """Draw `samples` networks of the space, predict them and hold them to the limits beside the budget."""
    source = RandomSuggest(seed)
    drawn: list[tuple[float, Answers, bool]] = []
    for _ in range(samples):
        recorder = RecordingSuggest(source)
        architecture = space.sample(recorder)
        fits = all(limit.excess(architecture) <= 0 for limit in limits)
        drawn.append((milliseconds(architecture), recorder.answers, fits))
    drawn.sort(key=lambda one: one[0])
    fastest, _ = _least(space, milliseconds, [answers for _, answers, _ in drawn[:DESCENTS]], seed=seed)
    latencies, answers, within = zip(*drawn, strict=True)
    return Survey(latencies, answers, within, fastest)


def require_each(space: Space, surveyed: Survey, limits: Sequence[Limit], *, seed: int) -> None:
    """Checks of every limit that some network of the space meets it.

    Raises:
        BudgetError: none is found that meets one of them.
    """
    if any(surveyed.within):
        return
    for limit in limits:
        least, _ = _least_of_drawn(space, surveyed, limit.amount, seed=seed)
        if least > limit.most:
            raise BudgetError(
                f"{limit.option} must be one that some network of the space meets, got {limit.shown(limit.most)}; "
                f"the least found has {limit.shown(least)}: raise it, or give a --space of smaller networks"
            )


def meeting(space: Space, surveyed: Survey, limits: Sequence[Limit], *, seed: int) -> Answers:
    """The decisions of a network that meets all of the limits, by changing one decision of those drawn after the other.

    Raises:
        BudgetError: none is found; the message names the limits that the nearest network is beyond.
    """

    def beyond(architecture: Architecture) -> float:
        return sum(max(limit.excess(architecture), 0.0) for limit in limits)

    least, answers = _least_of_drawn(space, surveyed, beyond, seed=seed)
    if least <= 0:
        return answers
    nearest = space.sample(FixedSuggest(answers))
    missed = [
        f"{limit.option} ({limit.shown(limit.amount(nearest))} against {limit.shown(limit.most)})"
        for limit in limits
        if limit.excess(nearest) > 0
    ]
    others = [limit.option for limit in limits if limit.excess(nearest) <= 0]
    raise BudgetError(
        f"some network of the space must meet all limits at once; the nearest found is within {', '.join(others) or 'none'} and "
        f"beyond {', '.join(missed)}: raise one of them, or give another --space"
    )


def _least_of_drawn(space: Space, surveyed: Survey, amount: Amount, *, seed: int) -> tuple[float, Answers]:
    by_amount = sorted(surveyed.answers, key=lambda answers: amount(space.sample(FixedSuggest(answers))))
    return _least(space, amount, by_amount[:DESCENTS], seed=seed)


def _least(space: Space, amount: Amount, starts: Sequence[Answers], *, seed: int) -> tuple[float, Answers]:
    """The least amount found from any of the starts, and the decisions that have it."""
    return min((_descend(space, amount, answers, seed=seed) for answers in starts), key=lambda found: found[0])


def _descend(space: Space, amount: Amount, answers: Answers, *, seed: int) -> tuple[float, Answers]:
    """The amount after changing one decision at a time for as long as that makes it less, and the decisions then.

    Decisions that only exist after a change are drawn at random, a few times over.
    """
    source = RandomSuggest(seed)

    def attempt(changed: Answers) -> tuple[float, RecordingSuggest]:
        recorder = RecordingSuggest(source, changed)
        return amount(space.sample(recorder)), recorder

    best, recorder = attempt(answers)
    improved = True
    while improved:
        improved = False
        for name, offer in list(recorder.offers.items()):
            for choice in offer:
                if recorder.answers.get(name, choice) == choice:
                    continue
                for _ in range(REDRAWS):
                    found, changed = attempt({**recorder.answers, name: choice})
                    if found < best:
                        best, recorder, improved = found, changed, True
    return best, recorder.answers

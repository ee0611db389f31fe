"""What a space can do on a device, asked of the latency model alone: its spread, its fastest network, where a budget lies.

Predictions cost microseconds, so thousands of networks are looked at before one is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchspace.architecture import Architecture
from searchspace.sampling import RandomSuggest
from searchspace.space import Space

DESCENTS = 8  # of the fastest drawn networks
REDRAWS = 4
Answers = Mapping[str, Any]
Milliseconds = Callable[[Architecture], float]


@dataclass(frozen=True)
class Survey:
    """Networks drawn at random, fastest first.

    Attributes:
        latencies_ms: predicted milliseconds, ascending.
        answers: the decisions that gave each.
        fastest_ms: the fastest network found, by changing one decision of the fastest drawn after the other.
    """

    latencies_ms: tuple[float, ...]
    answers: tuple[Answers, ...]
    fastest_ms: float

    def quantile_ms(self, share: float) -> float:
        """Milliseconds that this share of the networks stays within."""
        return self.latencies_ms[min(int(share * len(self.latencies_ms)), len(self.latencies_ms) - 1)]

    def feasible_share(self, budget_ms: float) -> float:
        """Share of the networks that stay within the budget."""
        return sum(ms <= budget_ms for ms in self.latencies_ms) / len(self.latencies_ms)

    def spread(self, budget_ms: float, count: int) -> list[Answers]:
        """Up to `count` networks within the budget, evenly spread over their ranks in latency, the fastest first."""
        fitting = [answers for ms, answers in zip(self.latencies_ms, self.answers, strict=True) if ms <= budget_ms]
        if len(fitting) <= count:
            return fitting
        positions = [round(index * (len(fitting) - 1) / max(count - 1, 1)) for index in range(count)]
        return [fitting[position] for position in positions]


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


def survey(space: Space, milliseconds: Milliseconds, *, samples: int = 2000, seed: int = 0) -> Survey:
    """Draw `samples` networks of the space and predict them."""
    source = RandomSuggest(seed)
    drawn: list[tuple[float, Answers]] = []
    for _ in range(samples):
        recorder = RecordingSuggest(source)
        drawn.append((milliseconds(space.sample(recorder)), recorder.answers))
    drawn.sort(key=lambda pair: pair[0])
    fastest = min(_descend(space, milliseconds, answers, seed=seed) for _, answers in drawn[:DESCENTS])
    return Survey(tuple(ms for ms, _ in drawn), tuple(answers for _, answers in drawn), fastest)


def _descend(space: Space, milliseconds: Milliseconds, answers: Answers, *, seed: int) -> float:
    """Milliseconds after changing one decision at a time for as long as that makes the network faster.

    Decisions that only exist after a change are drawn at random, a few times over.
    """
    source = RandomSuggest(seed)

    def attempt(changed: Answers) -> tuple[float, RecordingSuggest]:
        recorder = RecordingSuggest(source, changed)
        return milliseconds(space.sample(recorder)), recorder

    best, recorder = attempt(answers)
    improved = True
    while improved:
        improved = False
        for name, offer in list(recorder.offers.items()):
            for choice in offer:
                if recorder.answers.get(name, choice) == choice:
                    continue
                for _ in range(REDRAWS):
                    ms, changed = attempt({**recorder.answers, name: choice})
                    if ms < best:
                        best, recorder, improved = ms, changed, True
    return best

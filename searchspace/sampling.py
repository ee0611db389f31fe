"""Sampling by running: a space asks a `Suggest` for one decision after the other, only for those that exist.

An Optuna trial is a `Suggest`, and so are the sources here: random, fixed, and (in `every`) all decisions in turn.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from searchspace.errors import SpaceError

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str | int | float | bool | None)


class Suggest(Protocol):
    """Answers decisions by name. Names are stable: the same name always has the same choices within a space."""

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`, which have no order."""


class RandomSuggest:
    """Uniform and independent answers from a seeded source."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return low + int(self._random.random() * (high - low + 1))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[int(self._random.random() * len(choices))]


class FixedSuggest:
    """The answers of an earlier sample, by name.

    Raises:
        SpaceError: a decision has no answer, or one that the space does not offer.
    """

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self._answers = answers

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self._answer(name, range(low, high + 1)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, choices)

    def _answer(self, name: str, choices: Sequence[Any]) -> Any:
        if name not in self._answers:
            raise SpaceError(f"parameter {name!r} must be given, it is not among the {len(self._answers)} known ones")
        if self._answers[name] not in choices:
            raise SpaceError(f"parameter {name!r} must be one of {list(choices)}, got {self._answers[name]!r}")
        return self._answers[name]


class Ask(NamedTuple):
    """A `Suggest` seen from one place of the space; decisions with a single choice are not asked at all."""

    suggest: Suggest
    prefix: str = ""

    def at(self, name: str) -> "Ask":
        """The same, one name further in."""
        return Ask(self.suggest, f"{self.prefix}{name}.")

    def ordered(self, name: str, choices: Sequence[Choice]) -> Choice:
        """One of `choices` that have an order; asked for by position, so that a sampler knows which are neighbours."""
        if len(choices) == 1:
            return choices[0]
        return choices[self.suggest.suggest_int(self.prefix + name, 0, len(choices) - 1)]

    def choice(self, name: str, choices: Sequence[Choice]) -> Choice:
        """One of `choices` that have no order."""
        if len(choices) == 1:
            return choices[0]
        answer: Choice = self.suggest.suggest_categorical(self.prefix + name, choices)
        return answer


def every(sample: Callable[[Suggest], T]) -> Iterator[T]:
    """All results of a sampling function, by walking its tree of decisions; equal results may come more than once."""
    walk = _Walk()
    while True:
        walk.position = 0
        yield sample(walk)
        while walk.path and walk.path[-1][0] == walk.path[-1][1] - 1:
            walk.path.pop()
        if not walk.path:
            return
        answer, count = walk.path[-1]
        walk.path[-1] = (answer + 1, count)


class _Walk:
    """Repeats the decisions of `path` ((answer, number of answers) each), then takes first answers."""

    def __init__(self) -> None:
        self.path: list[tuple[int, int]] = []
        self.position = 0

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return low + self._next(high - low + 1)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[self._next(len(choices))]

    def _next(self, count: int) -> int:
        if self.position == len(self.path):
            self.path.append((0, count))
        self.position += 1
        return self.path[self.position - 1][0]

"""The decisions of a space: which there are, what each offers, and small changes to a network's answers.

Which decisions exist depends on others: a block that is not there has no kind, a Fire block no expansion. So answers are always
completed by the space itself, which asks only for those that exist, and every result here is a network of the space.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.survey import Answers, RecordingSuggest
from searchspace.architecture import Architecture
from searchspace.sampling import RandomSuggest
from searchspace.space import Space

DRAWS = 1500  # networks drawn to get to know a space's decisions
NEIGHBOUR = 0.7  # chance that a changed decision with an order goes to a neighbouring choice
ALIKE = 0.5  # chance that a block which a change adds is like the one before it
STAGEWISE = 0.5  # chance that two parents are crossed stage by stage, not decision by decision


@dataclass(frozen=True)
class Drawn:
    """A network of the space, and the answers that give it."""

    architecture: Architecture
    answers: Answers


@dataclass(frozen=True)
class Decisions:
    """The decisions of a space.

    Attributes:
        space: whose they are.
        offers: what each offers, by name; a range for those with an order.
        pins: answers that are settled: a decision in it is never anything else where that is on offer.
    """

    space: Space
    offers: Mapping[str, Sequence[Any]]
    pins: Answers = field(default_factory=dict)

    @staticmethod
    def of(space: Space, *, seed: int = 0) -> "Decisions":
        """Gets to know a space by drawing from it."""
        source = RandomSuggest(seed)
        offers: dict[str, Sequence[Any]] = {}
        for _ in range(DRAWS):
            recorder = RecordingSuggest(source)
            space.sample(recorder)
            offers |= recorder.offers
        return Decisions(space, dict(sorted(offers.items())))

    def complete(self, answers: Answers, *, seed: int) -> Drawn:
        """The network of these answers; what is missing, or not on offer, is drawn."""
        recorder = RecordingSuggest(RandomSuggest(seed), {**answers, **self.pins})
        return Drawn(self.space.sample(recorder), recorder.answers)

    def any(self, source: random.Random) -> Drawn:
        """Any network."""
        return self.complete({}, seed=source.getrandbits(48))

    def mutated(self, answers: Answers, source: random.Random, *, changes: int = 1) -> Drawn:
        """A network that differs in that many decisions (and in those that exist only since)."""
        free = [name for name in answers if name not in self.pins]
        changed = dict(answers)
        for name in source.sample(free, min(changes, len(free))):
            changed[name] = self._other(name, answers[name], source)
        for name in self._lacking(changed):
            if source.random() < ALIKE and (twin := _block_before(name)) in changed:
                changed[name] = changed[twin]
        return self.complete(changed, seed=source.getrandbits(48))

    def crossed(self, one: Answers, other: Answers, source: random.Random) -> Drawn:
        """A network that takes each decision from one of two parents; stage by stage, or each by itself."""
        names = sorted(one.keys() | other.keys())
        if source.random() < STAGEWISE:
            taken = {stage: source.random() < 0.5 for stage in sorted({_stage(name) for name in names})}
            from_one = {name: taken[_stage(name)] for name in names}
        else:
            from_one = {name: source.random() < 0.5 for name in names}
        first = {name: one[name] for name in names if name in one and (from_one[name] or name not in other)}
        second = {name: other[name] for name in names if name in other and name not in first}
        return self.complete({**first, **second}, seed=source.getrandbits(48))

    def _other(self, name: str, answer: object, source: random.Random) -> object:
        offer = self.offers.get(name, ())
        others = [choice for choice in offer if choice != answer]
        if isinstance(offer, range) and isinstance(answer, int) and source.random() < NEIGHBOUR:
            others = [choice for choice in others if abs(choice - answer) == 1]
        return source.choice(others) if others else answer

    def _lacking(self, answers: Answers) -> list[str]:
        """Decisions that some network has beside these."""
        return [name for name in self.offers if name not in answers]


def _stage(name: str) -> str:
    return name.partition(".")[0]


def _block_before(name: str) -> str:
    """The same decision of the block before, as ``stage2.block1.kind`` is for ``stage2.block2.kind``."""
    stage, _, rest = name.partition(".block")
    number, _, decision = rest.partition(".")
    return f"{stage}.block{int(number) - 1}.{decision}" if number.isdigit() else ""

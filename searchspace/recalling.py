"""Which decisions give an architecture: the way back from a network to a space's answers, if it is one of the space."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from searchspace.architecture import Architecture
from searchspace.blocks import Block
from searchspace.options import Place
from searchspace.sampling import Ask, FixedSuggest
from searchspace.space import DIVISOR, Space, Stage

Answers = dict[str, Any]


def recall(space: Space, architecture: Architecture) -> Answers | None:
    """Answers that give the architecture when the space is sampled with them; None where it is not in the space."""
    fitting = (architecture.channels, architecture.classes) == (space.channels, space.classes)
    if not fitting or architecture.resolution not in space.resolution:
        return None
    strides = space.strides(architecture.resolution)
    for answers in _stages(space, strides, 0, architecture.blocks, space.channels):
        given = _position("resolution", space.resolution, architecture.resolution) | answers
        for head in _all(space.head.sample, Ask(_Walk(), "head.")):
            if head[1] == architecture.head and space.sample(FixedSuggest(given | head[0])) == architecture:
                return given | head[0]
    return None


def _stages(space: Space, strides: Sequence[int], number: int, blocks: Sequence[Block], cin: int) -> Iterator[Answers]:
    """Answers by which the stages from `number` on give exactly these blocks."""
    if number == len(space.stages):
        if not blocks:
            yield {}
        return
    stage = space.stages[number]
    for depth in stage.depth:
        for width in stage.width:
            for activation in stage.activation:
                settled = _position(f"{stage.name}.depth", stage.depth, depth)
                settled |= _position(f"{stage.name}.width", stage.width, width)
                if len(stage.activation) > 1:
                    settled[f"{stage.name}.activation"] = activation
                for answers, left in _row(stage, blocks, depth, (cin, width, strides[number], activation)):
                    for following in _stages(space, strides, number + 1, left, width):
                        yield {**settled, **answers, **following}


def _row(
    stage: Stage, blocks: Sequence[Block], depth: int, entry: tuple[int, int, int, Any]
) -> Iterator[tuple[Answers, Sequence[Block]]]:
    """Answers by which a stage's blocks are the first of these, and the blocks that are left."""
    cin, width, stride, activation = entry
    answers: Answers = {}
    for index in range(depth):
        place = Place(cin, width, 1 if index else stride, activation, DIVISOR)
        at = Ask(_Walk(), f"{stage.name}.block{index + 1}.")
        found = next(
            (
                (given, unit)
                for given, unit in _all(lambda ask: stage.sample_block(ask, place, first=index == 0), at)  # noqa: B023
                if tuple(blocks[: len(unit)]) == unit
            ),
            None,
        )
        if found is None:
            return
        answers |= found[0]
        blocks, cin = blocks[len(found[1]) :], width
    yield answers, blocks


def _position(name: str, choices: Sequence[Any], answer: Any) -> Answers:
    """The answer to an ordered decision; none where there is but one choice."""
    return {name: choices.index(answer)} if len(choices) > 1 else {}


def _all(sample: Callable[[Ask], Any], ask: Ask) -> Iterator[tuple[Answers, Any]]:
    """Every result of a sampling function with the answers that give it, by walking its tree of decisions."""
    walk = ask.suggest
    assert isinstance(walk, _Walk)
    while True:
        walk.begin()
        result = sample(ask)
        yield dict(walk.answers), result
        if not walk.advance():
            return


class _Walk:
    """Goes through all answers in turn, and remembers them by name."""

    def __init__(self) -> None:
        self.path: list[list[int]] = []
        self.begin()

    def begin(self) -> None:
        self.at = 0
        self.answers: Answers = {}

    def advance(self) -> bool:
        while self.path and self.path[-1][0] == self.path[-1][1] - 1:
            self.path.pop()
        if not self.path:
            return False
        self.path[-1][0] += 1
        return True

    def suggest_int(self, name: str, low: int, high: int) -> int:
        answer = low + self._next(high - low + 1)
        self.answers[name] = answer
        return answer

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        answer = choices[self._next(len(choices))]
        self.answers[name] = answer
        return answer

    def _next(self, count: int) -> int:
        if self.at == len(self.path):
            self.path.append([0, count])
        self.at += 1
        return self.path[self.at - 1][0]

"""How many distinct architectures a space has, and whether one of them is a given one.

Different decisions can give the same architecture: two expansions may round to one width, and two short stages of one width
may read like one long and one short stage. So the space is read as a non-deterministic automaton over blocks: its states say
which stage is being filled, how wide it is and how many blocks it has; following all possible states at once (the subset
construction) visits every distinct sequence of blocks once.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from searchspace.architecture import Architecture
from searchspace.blocks import Block, Pool
from searchspace.graph import ActivationKind, Norm
from searchspace.options import Place
from searchspace.sampling import Ask, every

if TYPE_CHECKING:
    from searchspace.space import Space

Unit = tuple[Block, ...]  # what one decision for a block appends: the block, with the pool before it if it needs one


class _State(NamedTuple):
    """`done` blocks of stage number `stage` are placed, all `width` wide; stage -1: nothing is placed yet."""

    stage: int
    width: int
    activation: ActivationKind | None
    done: int


class _Automaton:
    """Reads the blocks of one resolution's architectures."""

    def __init__(self, space: "Space", resolution: int) -> None:
        self.stages = space.stages
        self.strides = space.strides(resolution)
        self.start = frozenset({_State(-1, space.channels, None, 0)})
        self.moves = lru_cache(maxsize=None)(self._moves)
        self.count = lru_cache(maxsize=None)(self._count)

    def accepts(self, units: Iterable[Unit]) -> bool:
        """Whether the sequence of units is one that the space can draw."""
        states = self.start
        for unit in units:
            states = frozenset(target for state in states for target in self.moves(state).get(unit, ()))
        return any(self._final(state) for state in states)

    def _count(self, states: frozenset[_State]) -> int:
        """Number of distinct sequences that lead from any of `states` to an end."""
        targets: dict[Unit, set[_State]] = {}
        for state in states:
            for unit, reached in self.moves(state).items():
                targets.setdefault(unit, set()).update(reached)
        groups: dict[frozenset[_State], int] = {}
        for group in map(frozenset, targets.values()):
            groups[group] = groups.get(group, 0) + 1
        ended = int(any(self._final(state) for state in states))
        return ended + sum(times * self.count(group) for group, times in groups.items())

    def _moves(self, state: _State) -> dict[Unit, frozenset[_State]]:
        """Where each unit leads from `state`: on in its stage, or into the next."""
        moves: dict[Unit, set[_State]] = {}
        if state.stage >= 0 and state.done < max(self.stages[state.stage].depth):
            self._add(moves, state._replace(done=state.done + 1), cin=state.width)
        if self._complete(state) and state.stage + 1 < len(self.stages):
            following = self.stages[state.stage + 1]
            for width in following.width:
                for activation in following.activation:
                    self._add(moves, _State(state.stage + 1, width, activation, 1), cin=state.width)
        return {unit: frozenset(reached) for unit, reached in moves.items()}

    def _add(self, moves: dict[Unit, set[_State]], target: _State, *, cin: int) -> None:
        stage, first = self.stages[target.stage], target.done == 1
        assert target.activation is not None
        place = Place(cin, target.width, self.strides[target.stage] if first else 1, target.activation)
        for unit in set(every(lambda suggest: stage.sample_block(Ask(suggest), place, first=first))):
            moves.setdefault(unit, set()).add(target)

    def _complete(self, state: _State) -> bool:
        return state.stage < 0 or state.done in self.stages[state.stage].depth

    def _final(self, state: _State) -> bool:
        return state.stage == len(self.stages) - 1 and self._complete(state)


def size(space: "Space") -> int:
    """Number of distinct architectures."""
    heads = len(set(every(lambda suggest: space.head.sample(Ask(suggest)))))
    automata = (_Automaton(space, resolution) for resolution in space.resolution)
    return heads * sum(automaton.count(automaton.start) for automaton in automata)


def contains(space: "Space", architecture: Architecture) -> bool:
    """Whether the architecture can be drawn."""
    return (
        architecture.resolution in space.resolution
        and architecture.channels == space.channels
        and architecture.classes == space.classes
        and architecture.norm == Norm()
        and architecture.head in set(every(lambda suggest: space.head.sample(Ask(suggest))))
        and _Automaton(space, architecture.resolution).accepts(_units(architecture.blocks))
    )


def _units(blocks: Iterable[Block]) -> list[Unit]:
    """Blocks grouped as they are drawn: a pool belongs to the block after it."""
    units: list[Unit] = []
    waiting: Unit = ()
    for block in blocks:
        waiting = (*waiting, block)
        if not isinstance(block, Pool):
            units.append(waiting)
            waiting = ()
    return [*units, waiting] if waiting else units

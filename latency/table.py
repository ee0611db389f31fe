"""A latency model tabulated for a row of slots, so that millions of networks a second can be looked up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency.features import CACHES
from latency.fitting import NETWORK
from latency.kernel import Entry
from latency.model import LatencyModel
from searchspace.blocks import Block, Head
from searchspace.errors import ArchitectureError
from searchspace.graph import Norm, Shape
from searchspace.options import Place
from searchspace.sampling import Ask, RandomSuggest, Suggest, every
from searchspace.space import Space, Stage

TOGETHER = 8192  # networks looked up at a time: what they read and write stays in the core's caches

State = tuple[Shape, Entry]
Choice = tuple[Block, ...]


@dataclass(frozen=True)
class BlockTable:
    """Exactly the model's milliseconds for networks that take one of several choices in each slot.

    What a choice costs depends on what the slot before leaves: the shape of the map and its layout, the *state*. Each slot has
    an array of milliseconds and one of next states, by state and choice; where a choice does not fit a state there is infinity.

    Attributes:
        slots: per slot its choices, each a tuple of blocks.
        ms: per slot (states, choices) milliseconds; as imaginary part the bytes of weights, so that one look-up finds both.
        leaves: per slot (states, choices) the state that follows.
        end_ms: (states,) the same of the head and of any network, by the last state.
        memory_ms: milliseconds for each byte of weights beyond a size, with the size.
    """

    slots: tuple[tuple[Choice, ...], ...]
    ms: tuple[NDArray[np.complex128], ...]
    leaves: tuple[NDArray[np.intp], ...]
    end_ms: NDArray[np.complex128]
    memory_ms: tuple[tuple[float, int], ...]

    @staticmethod
    def build(
        model: LatencyModel,
        slots: Sequence[Sequence[Choice]],
        *,
        shape: Shape,
        head: Head,
        classes: int,
        norm: Norm | None,
    ) -> "BlockTable":
        """Tabulates a model.

        Args:
            model: the latency model.
            slots: for each slot its choices, each a tuple of blocks (an empty one leaves the slot out).
            shape: of the image.
            head: after the last slot.
            classes: that the head tells apart.
            norm: normalisation after convolutions.

        Raises:
            UnmeasuredKernel: a choice needs a kind of kernel that was never measured.
        """
        states: list[State] = [(shape, Entry())]
        all_ms, all_leaves = [], []
        for choices in slots:
            following: dict[State, int] = {}
            ms = np.full((len(states), len(choices)), np.inf, np.complex128)
            leaves = np.zeros((len(states), len(choices)), np.intp)
            for row, state in enumerate(states):
                for column, choice in enumerate(choices):
                    try:
                        cost, left = _walk(model, state, choice, norm)
                    except ArchitectureError:  # this choice does not fit behind that one
                        continue
                    ms[row, column] = cost
                    leaves[row, column] = following.setdefault(left, len(following))
            states = list(following)
            all_ms.append(ms)
            all_leaves.append(leaves)
        end = [
            model.weights[NETWORK] + complex(*model.head_cost(head, left, entry, classes, norm))
            for left, entry in states
        ]
        memory_ms = tuple((model.weights.get(f"memory:beyond {name}", 0.0), size) for name, size in CACHES.items())
        kept = tuple(map(tuple, slots))
        return BlockTable(kept, tuple(all_ms), tuple(all_leaves), np.array(end), memory_ms)

    def lookup_ms(self, choices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Milliseconds of many networks.

        Args:
            choices: (networks, slots) which choice each takes in each slot.

        Returns:
            (networks,) milliseconds; infinity where choices do not fit each other.
        """
        found = np.empty(len(choices))
        for start in range(0, len(choices), TOGETHER):
            found[start : start + TOGETHER] = self._lookup_ms(choices[start : start + TOGETHER])
        return found

    def _lookup_ms(self, choices: NDArray[np.integer]) -> NDArray[np.float64]:
        total = np.zeros(len(choices), np.complex128)
        state: NDArray[np.intp] | None = None  # None: all networks are in the only state there is
        for slot, (ms, leaves) in enumerate(zip(self.ms, self.leaves, strict=True)):
            cell = choices[:, slot] if state is None else state * ms.shape[1] + choices[:, slot]
            total += ms.take(cell)
            state = leaves.take(cell) if leaves.any() else None
        total += self.end_ms[0] if state is None else self.end_ms.take(state)
        found = total.real.copy()
        for ms_per_byte, size in self.memory_ms:
            if ms_per_byte:
                found += ms_per_byte * np.maximum(total.imag - size, 0.0)
        return found


def tabulate(model: LatencyModel, space: Space) -> BlockTable:
    """A table of the networks of a space that have all its layers at its largest widths, with every choice of blocks.

    Each stage has the first of its activations, and all networks have one head.

    Args:
        model: the latency model.
        space: adapted to the data, of one resolution.

    Returns:
        The table, whose `slots` say which blocks a choice is: one slot a layer.

    Raises:
        ArchitectureError: the space has several resolutions.
        UnmeasuredKernel: a choice needs a kind of kernel that was never measured.
    """
    if len(space.resolution) != 1:
        raise ArchitectureError(f"a table is of one resolution, the space has {', '.join(map(str, space.resolution))}")
    slots: list[list[Choice]] = []
    cin = space.channels
    for stage, stride in zip(space.stages, space.strides(space.resolution[0]), strict=True):
        for index in range(stage.depth[-1]):
            place = Place(cin, stage.width[-1], 1 if index else stride, stage.activation[0])

            def draw(suggest: Suggest, stage: Stage = stage, place: Place = place, first: bool = index == 0) -> Choice:
                return stage.sample_block(Ask(suggest), place, first=first)

            slots.append(list(dict.fromkeys(every(draw))))
            cin = stage.width[-1]
    sample = space.sample(RandomSuggest(0))
    return BlockTable.build(
        model, slots, shape=sample.input_shape, head=sample.head, classes=space.classes, norm=sample.norm
    )


def _walk(model: LatencyModel, state: State, choice: Choice, norm: Norm | None) -> tuple[complex, State]:
    """What a choice costs in a state, in milliseconds and (imaginary) bytes of weights, and the state it leaves."""
    shape, entry = state
    cost = 0j
    for block in choice:
        leaving = block.output(shape)
        ms, weights, entry = model.block_cost(block, shape, entry, norm)
        cost += complex(ms, weights)
        shape = leaving
    return cost, (shape, entry)

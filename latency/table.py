"""A latency model tabulated for a row of slots, so that millions of networks a second can be looked up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency.fitting import NETWORK
from latency.kernel import Entry
from latency.model import LatencyModel
from searchspace.blocks import Block, Head
from searchspace.errors import ArchitectureError
from searchspace.graph import Norm, Shape

State = tuple[Shape, Entry]
Choice = tuple[Block, ...]


@dataclass(frozen=True)
class BlockTable:
    """Exactly the model's milliseconds for networks that take one of several choices in each slot.

    What a choice costs depends on what the slot before leaves: the shape of the map and its layout, the *state*. Each slot has
    an array of milliseconds and one of next states, by state and choice; where a choice does not fit a state there is infinity.

    Attributes:
        ms: per slot (states, choices) milliseconds.
        leaves: per slot (states, choices) the state that follows.
        end_ms: (states,) milliseconds of the head and of any network, by the last state.
    """

    ms: tuple[NDArray[np.float64], ...]
    leaves: tuple[NDArray[np.intp], ...]
    end_ms: NDArray[np.float64]

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
            ms = np.full((len(states), len(choices)), np.inf)
            leaves = np.zeros((len(states), len(choices)), np.intp)
            for row, state in enumerate(states):
                for column, choice in enumerate(choices):
                    try:
                        ms[row, column], left = _walk(model, state, choice, norm)
                    except ArchitectureError:  # this choice does not fit behind that one
                        continue
                    leaves[row, column] = following.setdefault(left, len(following))
            states = list(following)
            all_ms.append(ms)
            all_leaves.append(leaves)
        end = [model.weights[NETWORK] + model.head_ms(head, left, entry, classes, norm) for left, entry in states]
        return BlockTable(tuple(all_ms), tuple(all_leaves), np.array(end))

    def lookup_ms(self, choices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Milliseconds of many networks.

        Args:
            choices: (networks, slots) which choice each takes in each slot.

        Returns:
            (networks,) milliseconds; infinity where choices do not fit each other.
        """
        total = np.zeros(len(choices))
        state: NDArray[np.intp] | None = None  # None: all networks are in the only state there is
        for slot, (ms, leaves) in enumerate(zip(self.ms, self.leaves, strict=True)):
            cell = choices[:, slot] if state is None else state * ms.shape[1] + choices[:, slot]
            total += ms.take(cell)
            state = leaves.take(cell) if leaves.any() else None
        return total + (self.end_ms[0] if state is None else self.end_ms.take(state))


def _walk(model: LatencyModel, state: State, choice: Choice, norm: Norm | None) -> tuple[float, State]:
    shape, entry = state
    ms = 0.0
    for block in choice:
        leaving = block.output(shape)
        block_ms, entry = model.block_ms(block, shape, entry, norm)
        ms += block_ms
        shape = leaving
    return ms, (shape, entry)

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

State = tuple[Shape, Entry]
Choice = tuple[Block, ...]


@dataclass(frozen=True)
class BlockTable:
    """Exactly the model's milliseconds for networks that take one of several choices in each slot.

    What a choice costs depends on what the slot before leaves: the shape of the map and its layout, the *state*. Each slot has
    an array of milliseconds and one of next states, by state and choice; where a choice does not fit a state there is infinity.

    Attributes:
        ms: per slot (states, choices) milliseconds; as imaginary part the bytes of weights, so that one look-up finds both.
        leaves: per slot (states, choices) the state that follows.
        end_ms: (states,) the same of the head and of any network, by the last state.
        memory_ms: milliseconds for each byte of weights beyond a size, with the size.
    """

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
        return BlockTable(tuple(all_ms), tuple(all_leaves), np.array(end), memory_ms)

    def lookup_ms(self, choices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Milliseconds of many networks.

        Args:
            choices: (networks, slots) which choice each takes in each slot.

        Returns:
            (networks,) milliseconds; infinity where choices do not fit each other.
        """
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

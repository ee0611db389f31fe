"""Networks as rows of numbers of one length, whichever decisions they have.

Three groups of columns, from the general to the particular: what the network costs; how its blocks are on average, in the whole
network and stage by stage; and every single decision. A surrogate that learns from a few dozen networks lives on the first two.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.sampling.decisions import Decisions
from nas.survey import Answers
from searchspace.architecture import Architecture, lower_block, lower_head

Row = NDArray[np.float64]


@dataclass(frozen=True)
class Encoder:
    """Encodes networks of one space."""

    decisions: Decisions

    def encode(self, architecture: Architecture, answers: Answers, ms: float) -> Row:
        """A row: see `groups` for its parts."""
        macs, params = _cost(architecture)
        single = np.zeros(self._singles)
        sums, counts = [0.0] * len(self._pooled), [0] * len(self._pooled)
        for name, answer in answers.items():
            for column, value, pools in self._parts.get((name, answer), ()):
                single[column] = value
                for pool in pools:
                    sums[pool] += value
                    counts[pool] += 1
        pooled = [total / count if count else 0.0 for total, count in zip(sums, counts, strict=True)]
        return np.concatenate(([math.log(ms), math.log(macs), math.log(params)], pooled, single))

    @property
    def groups(self) -> tuple[slice, ...]:
        """Columns of cost, of averages, of single decisions."""
        pooled = 3 + len(self._pooled)
        return slice(0, 3), slice(3, pooled), slice(pooled, pooled + self._singles)

    @cached_property
    def _parts(self) -> Mapping[tuple[str, object], tuple[tuple[int, float, tuple[int, ...]], ...]]:
        """By decision and answer: columns, their values, and the averages that these enter."""
        positions = {name: position for position, name in enumerate(self._pooled)}
        parts, start = {}, 0
        for name, offer in self.decisions.offers.items():
            pools = _pools(name)
            for index, answer in enumerate(offer):
                parts[name, answer] = tuple(
                    (start + number, value, tuple(positions[f"{pool}.{number}"] for pool in pools))
                    for number, value in enumerate(_values(offer, index))
                )
            start += _columns(offer)
        return parts

    @cached_property
    def _singles(self) -> int:
        return sum(_columns(offer) for offer in self.decisions.offers.values())

    @cached_property
    def _pooled(self) -> tuple[str, ...]:
        """The averages, by name."""
        names = {
            f"{pool}.{number}": None
            for name, offer in self.decisions.offers.items()
            for pool in _pools(name)
            for number in range(_columns(offer))
        }
        return tuple(names)


def _cost(architecture: Architecture) -> tuple[int, int]:
    """MACs and parameters, block by block: nearly every block of a proposal was met before."""
    norm, shapes = architecture.norm, architecture.shapes
    ops = list(lower_head(architecture.head, shapes[-1], classes=architecture.classes, norm=norm))
    for block, shape in zip(architecture.blocks, shapes, strict=False):
        ops += lower_block(block, shape, norm)
    return sum(op.macs for op in ops), sum(op.params for op in ops)


def _columns(offer: Sequence[Any]) -> int:
    return 1 if isinstance(offer, range) else len(offer)


def _values(offer: Sequence[Any], index: int) -> tuple[float, ...]:
    """One number in [−1, 1] where choices have an order, else one for each choice."""
    if isinstance(offer, range):
        return (2 * index / (len(offer) - 1) - 1,)
    return tuple(1.0 if other == index else -1.0 for other in range(len(offer)))


def _pools(name: str) -> tuple[str, ...]:
    """The averages that a decision enters: over the network and over its stage, or a single one."""
    stage, _, rest = name.partition(".")
    block, _, decision = rest.partition(".")
    return (decision, f"{stage}.{decision}") if block.startswith("block") else (name,)

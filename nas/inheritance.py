"""Warm starts: a network begins with the weights of a trained relative, wherever the two have something in common.

Blocks are matched in order, like with like: of one kind, at maps of one size. Within matched blocks a tensor takes what fits:
channels beyond the relative's keep their random start, surplus ones are left out, a smaller kernel is the middle of a larger one.
"""

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from searchspace.architecture import Architecture, lower
from searchspace.graph import Conv, Linear

BLOCKS = "blocks."


def likeness(child: Architecture, relative: Architecture) -> float:
    """Share of the child's weights that it can take from the relative, in [0, 1]; 1 for the same architecture."""
    matched = match_blocks(child, relative)
    ours, theirs = _weights(child), _weights(relative)
    taken = sum(_overlap(shape, theirs.get(_counterpart(name, matched) or "", ())) for name, shape in ours.items())
    return taken / sum(math.prod(shape) for shape in ours.values())


def inherit(
    start: Mapping[str, Tensor], child: Architecture, weights: Mapping[str, Tensor], relative: Architecture
) -> dict[str, Tensor]:
    """The child's tensors: the relative's where they fit, those of `start` elsewhere.

    Args:
        start: a random start of the child, by name.
        child: the network that is to be trained.
        weights: the relative's, by name.
        relative: a trained network.
    """
    matched = match_blocks(child, relative)
    result = {}
    for name, tensor in start.items():
        given = weights.get(_counterpart(name, matched) or "")
        result[name] = tensor if given is None else _fitted(tensor, given)
    return result


def match_blocks(child: Architecture, relative: Architecture) -> dict[int, int]:
    """For blocks of the child the relative's block that each resembles: in order, and as many weights in common as possible."""
    ours, theirs = _blocks(child), _blocks(relative)
    rows, columns = len(ours), len(theirs)
    best = [[0] * (columns + 1) for _ in range(rows + 1)]  # weights in common of the first so many blocks of both
    gain = [[_in_common(one, other) for other in theirs] for one in ours]
    for row in range(rows):
        for column in range(columns):
            best[row + 1][column + 1] = max(
                best[row][column + 1], best[row + 1][column], best[row][column] + gain[row][column]
            )
    matched = {}
    row, column = rows, columns
    while row and column:
        if best[row][column] == best[row - 1][column]:
            row -= 1
        elif best[row][column] == best[row][column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            matched[row] = column
    return matched


Shapes = dict[str, tuple[int, ...]]


@lru_cache(maxsize=1024)
def _weights(architecture: Architecture) -> Shapes:
    """Shapes of the weights of convolutions and linear layers, by the tensor's name."""
    shapes: Shapes = {}
    for op in lower(architecture).ops:
        if isinstance(op, Conv):
            shapes[f"{op.name}.weight"] = (op.shape.channels, op.cin // op.groups, op.kernel, op.kernel)
        elif isinstance(op, Linear):
            shapes[f"{op.name}.weight"] = (op.shape.channels, op.cin)
    return shapes


@lru_cache(maxsize=1024)
def _blocks(architecture: Architecture) -> tuple[tuple[object, Shapes], ...]:
    """Per block what must be alike in a match (kind, height of the maps before and after it), and its weights."""
    weights = _weights(architecture)
    result = []
    for index, block in enumerate(architecture.blocks):
        before, after = architecture.shapes[index : index + 2]
        start = f"{BLOCKS}{index}."
        own = {name.removeprefix(start): shape for name, shape in weights.items() if name.startswith(start)}
        result.append(((type(block).__name__, before.height, after.height), own))
    return tuple(result)


def _in_common(one: tuple[object, Shapes], other: tuple[object, Shapes]) -> int:
    if one[0] != other[0]:
        return 0
    return sum(_overlap(shape, other[1].get(name, ())) for name, shape in one[1].items())


def _overlap(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Numbers that a tensor of shape `one` can take from one of shape `other`."""
    return math.prod(map(min, one, other)) if len(one) == len(other) else 0


def _counterpart(name: str, matched: Mapping[int, int]) -> str | None:
    """Name of the relative's tensor, None where the child's block has no match."""
    if not name.startswith(BLOCKS):
        return name
    _, index, rest = name.split(".", 2)
    block = matched.get(int(index))
    return None if block is None else f"{BLOCKS}{block}.{rest}"


def _fitted(start: Tensor, given: Tensor) -> Tensor:
    """`start`, overwritten by what fits of `given`: leading channels, and the middle of kernels."""
    if start.ndim != given.ndim or start.ndim == 0:
        return start if start.ndim != given.ndim else given.clone()
    result = start.clone()
    ours, theirs = [], []
    for axis, (mine, other) in enumerate(zip(start.shape, given.shape, strict=True)):
        size = min(mine, other)
        offset = axis >= 2  # kernels are centred
        ours.append(slice((mine - size) // 2 if offset else 0, (mine - size) // 2 + size if offset else size))
        theirs.append(slice((other - size) // 2 if offset else 0, (other - size) // 2 + size if offset else size))
    result[tuple(ours)] = given[tuple(theirs)].to(result.dtype)
    return result


def fresh_state(architecture: Architecture, *, seed: int) -> dict[str, Tensor]:
    """A random start, drawn from the seed; torch's random state is left as it was."""
    from searchspace.network import Network

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Network(architecture).state_dict()

"""What there is to say about an architecture: its cost, its rows as in a paper's table, its layers, and what differs."""

import dataclasses
from dataclasses import dataclass
from itertools import product
from typing import Any

from searchspace import graph
from searchspace.architecture import Architecture, lower
from searchspace.blocks import (
    UIB,
    Block,
    ClassicHead,
    Conv,
    Fire,
    FusedBottleneck,
    Head,
    MobileNetHead,
    MultiQueryAttention,
    NinHead,
    Pool,
    Separable,
)

ALONE = 3.0  # fields that may differ before a block counts as gone, and as come
COSTS = ("params", "macs", "weights_bytes", "peak_activation_bytes")


@dataclass(frozen=True)
class Row:
    """One row of the table: what comes in, what is done with it, what it costs; "" where a column does not apply."""

    place: str
    shape: graph.Shape
    operator: str
    hidden: str
    out: str
    activation: str
    stride: str
    extras: str
    params: int
    macs: int


@dataclass(frozen=True)
class Change:
    """A part that differs between two architectures; a value is None where the part or field is in one of them only."""

    place: str
    kind: str
    fields: dict[str, tuple[Any, Any]]


def describe(architecture: Architecture) -> dict[str, Any]:
    """Name, fingerprint, cost and layers as plain data.

    A layer's `params` are its weights and bias; those of the normalisation after it are its `norm_params`.
    """
    lowered = lower(architecture)
    return {
        "name": architecture.name,
        "fingerprint": architecture.fingerprint,
        "resolution": architecture.resolution,
        "channels": architecture.channels,
        "classes": architecture.classes,
        **{cost: getattr(lowered, cost) for cost in COSTS},
        "layers": [_layer(op) for op in lowered if isinstance(op, graph.Conv | graph.Linear)],
    }


def rows(architecture: Architecture) -> list[Row]:
    """The blocks and the head, in order."""
    ops = lower(architecture).ops
    found = []
    for index, (block, shape) in enumerate(zip(architecture.blocks, architecture.shapes[:-1], strict=True)):
        found.append(_row(f"blocks.{index}", block, shape, ops))
    return [*found, _row("head", architecture.head, architecture.shapes[-1], ops)]


def changes(before: Architecture, after: Architecture) -> list[Change]:
    """What to change in `before` to have `after`, part by part; names aside."""
    found = [
        Change(key, "architecture", {key: (getattr(before, key), getattr(after, key))})
        for key in ("resolution", "channels", "classes", "norm")
        if getattr(before, key) != getattr(after, key)
    ]
    for first, old, new in _aligned(before.blocks, after.blocks):
        found += _part_change(f"blocks.{first}", old, new)
    return found + _part_change("head", before.head, after.head)


def _row(place: str, part: Block | Head, shape: graph.Shape, ops: tuple[graph.Op, ...]) -> Row:
    own = [op for op in ops if op.name.startswith(f"{place}.")]
    extras = [
        f"SE {part.se}" if getattr(part, "se", 0) else "",  # type: ignore[union-attr]
        "residual" if getattr(part, "residual", False) else "",
        f"{part.bypass} bypass" if isinstance(part, Fire) and part.bypass != "none" else "",
        f"dropout {part.dropout:g}" if getattr(part, "dropout", 0) else "",  # type: ignore[union-attr]
    ]
    operator, hidden = _operator(part)
    return Row(
        place=place,
        shape=shape,
        operator=operator,
        hidden=hidden,
        out=str(own[-1].shape.channels),
        activation=getattr(part, "activation", None) or "",
        stride=str(getattr(part, "stride", "")),
        extras=", ".join(extra for extra in extras if extra),
        params=sum(op.params for op in own),
        macs=sum(op.macs for op in own),
    )


def _operator(part: Block | Head) -> tuple[str, str]:
    """What a block is called in the papers, with its kernels, and its inner widths."""
    match part:
        case Conv():
            return f"conv {_kernels(part.kernel)}", ""
        case Separable():
            return f"separable {_kernels(part.kernel)}", ""
        case UIB(hidden=None):
            return f"depthwise {_kernels(part.dw_start, part.dw_mid)}", ""
        case UIB():
            return f"{part.variant} {_kernels(part.dw_start, part.dw_mid)}".rstrip(), str(part.hidden)
        case FusedBottleneck():
            return f"FusedIB {_kernels(part.kernel)}", str(part.hidden)
        case Fire():
            return "fire", f"{part.squeeze} → {part.expand1x1} + {part.expand3x3}"
        case MultiQueryAttention():
            reduced = f", kv /{part.kv_stride}" if part.kv_stride > 1 else ""
            return (
                f"{'MQA' if part.shared else 'MHSA'} {part.heads} heads{reduced}",
                f"{part.key_dim}, {part.value_dim}",
            )
        case Pool():
            return f"{part.function} pool {_kernels(part.kernel)}", ""
        case ClassicHead():
            return "pool, classifier", ""
        case MobileNetHead():
            return "pool, conv 1×1, classifier", str(part.hidden)
        case NinHead():
            return "conv 1×1, pool", ""


def _kernels(*kernels: int) -> str:
    return ", ".join(f"{kernel}×{kernel}" for kernel in kernels if kernel)


def _layer(op: graph.Conv | graph.Linear) -> dict[str, Any]:
    if isinstance(op, graph.Conv):
        window = {"kernel": op.kernel, "stride": op.stride, "groups": op.groups, "bias": op.bias}
        norm_params = 2 * op.shape.channels if op.norm else 0
    else:
        window, norm_params = {"kernel": 1, "stride": 1, "groups": 1, "bias": True}, 0
    return {
        "name": op.name,
        "cin": op.cin,
        "cout": op.shape.channels,
        **window,
        "out_h": op.shape.height,
        "out_w": op.shape.width,
        "params": op.params - norm_params,
        "norm_params": norm_params,
        "macs": op.macs,
    }


def _aligned(before: tuple[Block, ...], after: tuple[Block, ...]) -> list[tuple[int, Block | None, Block | None]]:
    """Pairs of blocks that correspond, with the place of the first: one by one, or so that the least differs in all."""
    if len(before) == len(after):
        return list(zip(range(len(before)), before, after, strict=True))
    # least[i][j]: what differs at least between the first i and the first j blocks, and the step that leads there
    least = [[(float(i + j) * ALONE, (0, 0)) for j in range(len(after) + 1)] for i in range(len(before) + 1)]
    for i, j in product(range(len(before) + 1), range(len(after) + 1)):
        steps = [(1, 0), (0, 1)] if i and j else [(1, 0)] * bool(i) + [(0, 1)] * bool(j)
        found = [(least[i - up][j - on][0] + ALONE, (up, on)) for up, on in steps]
        if i and j and type(before[i - 1]) is type(after[j - 1]):
            found.append((least[i - 1][j - 1][0] + _differing(before[i - 1], after[j - 1]), (1, 1)))
        if found:
            least[i][j] = min(found, key=lambda one: (one[0], sum(one[1])))  # of equal ones the later is gone
    pairs: list[tuple[int, Block | None, Block | None]] = []
    i, j = len(before), len(after)
    while i or j:
        up, on = least[i][j][1]
        i, j = i - up, j - on
        pairs.append((i, before[i] if up else None, after[j] if on else None))
    return pairs[::-1]


def _differing(before: Block, after: Block) -> int:
    """Fields that differ."""
    return sum(getattr(before, item.name) != getattr(after, item.name) for item in dataclasses.fields(before))


def _part_change(place: str, before: Block | Head | None, after: Block | Head | None) -> list[Change]:
    if before == after:
        return []
    if before is None or after is None or type(before) is not type(after):
        gone = [] if before is None else [Change(place, before.kind, {"-": (_text(before), None)})]
        return gone + ([] if after is None else [Change(place, after.kind, {"+": (None, _text(after))})])
    names = [item.name for item in dataclasses.fields(before)]
    pairs = {name: (getattr(before, name), getattr(after, name)) for name in names}
    return [Change(place, before.kind, {name: pair for name, pair in pairs.items() if pair[0] != pair[1]})]


def _text(part: Block | Head) -> str:
    given = ((item, getattr(part, item.name)) for item in dataclasses.fields(part))
    return " ".join([part.kind, *(f"{item.name}={value}" for item, value in given if value != item.default)])

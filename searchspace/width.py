"""Which channel counts of an architecture move together, and changing them.

A `Width` is the smallest set of channels that can only be narrowed as one: the two sides of a residual sum, a convolution and
the depthwise one after it, a squeeze-excite's gate and what it scales, the parts of a Fire module's concatenation and what
is added to them. They follow from the graph: every convolution with a width of its own brings new channels, ops that keep
channels pass them on, and sums and products tie theirs together (union-find over single channels, so that a sum may cut
through a concatenation). The image's channels and the classes never move.

Attention has three widths, which cross each other in the same channels: heads, and the key and value dimensions of each head.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from searchspace import graph
from searchspace.architecture import Architecture, lower
from searchspace.blocks import Fire
from searchspace.errors import ArchitectureError
from searchspace.graph import Graph

Units = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Channels of one op's result that belong to a width: those in row `u` of `units` stay or go with its unit `u`."""

    op: str
    units: Units


@dataclass(frozen=True, slots=True)
class Width:
    """Channels that are narrowed as one.

    Attributes:
        name: identifies it within its architecture; its first field wherever that is its own, as in ``blocks.3.hidden``.
        fields: the numbers in the architecture that it is, or is a part of, in the order of the network.
        count: units it has now: channels, or heads, or channels of each head.
        places: the ops that make these channels.
    """

    name: str
    fields: tuple[str, ...]
    count: int
    places: tuple[Place, ...]


def widths(architecture: Architecture) -> tuple[Width, ...]:
    """Every width of an architecture, in the order of the network."""
    lowered = lower(architecture)
    found: list[tuple[int, Width]] = [*_channel_widths(architecture, lowered), *_attention_widths(lowered)]
    return tuple(width for _, width in sorted(found, key=lambda pair: pair[0]))


def set_width(architecture: Architecture, width: Width, count: int) -> Architecture:
    """The architecture with `width`, one of its `widths`, at `count` units instead.

    Raises:
        ArchitectureError: the count is below 1.
    """
    return set_widths(architecture, ((width, count),))


def set_widths(architecture: Architecture, counts: Sequence[tuple[Width, int]]) -> Architecture:
    """The architecture with several of its widths changed at once.

    Raises:
        ArchitectureError: a count is below 1.
    """
    change: dict[str, int] = {}
    for width, count in counts:
        if count < 1:
            raise ArchitectureError(f"{width.name}: a width must be at least 1, got {count}")
        for field in width.fields:
            change[field] = change.get(field, 0) + count - width.count
    blocks = list(architecture.blocks)
    head = architecture.head
    for field, difference in change.items():
        *part, key = field.split(".")
        if part == ["head"]:
            head = dataclasses.replace(head, **{key: getattr(head, key) + difference})
        else:
            index = int(part[1])
            value = getattr(blocks[index], key) + difference
            blocks[index] = dataclasses.replace(blocks[index], **{key: value})
    return dataclasses.replace(architecture, blocks=tuple(blocks), head=head, name="")


def droppable(architecture: Architecture) -> tuple[int, ...]:
    """Positions of the blocks that add to their input, so that a network without them is whole."""
    if len(architecture.blocks) == 1:
        return ()
    return tuple(
        index
        for index, block in enumerate(architecture.blocks)
        if getattr(block, "residual", False) or (isinstance(block, Fire) and block.bypass == "identity")
    )


def drop_block(architecture: Architecture, index: int) -> Architecture:
    """The architecture without one of its `droppable` blocks; later blocks move up.

    Raises:
        ArchitectureError: the block does more than add to its input.
    """
    if index not in droppable(architecture):
        raise ArchitectureError(f"only a residual block can be dropped, one of {droppable(architecture)}, got {index}")
    blocks = architecture.blocks[:index] + architecture.blocks[index + 1 :]
    return dataclasses.replace(architecture, blocks=blocks, name="")


class _Channels:
    """Union-find over channels."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def new(self, count: int) -> list[int]:
        start = len(self.parent)
        self.parent += range(start, start + count)
        return self.parent[start:]

    def root(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def tie(self, some: Sequence[int], others: Sequence[int]) -> None:
        for one, other in zip(some, others, strict=True):
            self.parent[self.root(other)] = self.root(one)


def _channel_widths(architecture: Architecture, lowered: Graph) -> Iterator[tuple[int, Width]]:
    """Each plain width with the position of the first op that makes it."""
    made, fixed = _tied(lowered)
    groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}  # ops that make a channel: its position in each
    where: dict[int, list[tuple[int, int]]] = {}
    for position, roots in made.items():
        for channel, root in enumerate(roots):
            where.setdefault(root, []).append((position, channel))
    for root, spots in where.items():
        if root not in fixed:
            ops, channels = zip(*spots, strict=True)
            groups.setdefault(ops, []).append(channels)
    fields = {ops: _fields(architecture, lowered, ops) for ops in groups}
    shared = [field for some in fields.values() for field in some]
    for ops, rows in groups.items():
        own = [field for field in fields[ops] if shared.count(field) == 1]
        places = tuple(
            Place(lowered.ops[op].name, tuple((row[index],) for row in rows)) for index, op in enumerate(ops)
        )
        yield ops[0], Width(own[0] if own else "+".join(fields[ops]), fields[ops], len(rows), places)


def _tied(lowered: Graph) -> tuple[dict[int, list[int]], set[int]]:
    """The ops that make channels with the root of each, and the roots that never move."""
    channels = _Channels()
    crossed = {
        source for op in lowered.ops if isinstance(op, graph.Attention) for source in op.inputs
    }  # queries, keys and values: their channels belong to two widths each
    labels: list[list[int]] = []
    makers: list[int] = []
    for position, op in enumerate(lowered.ops):
        if not _makes_channels(op):
            labels.append(
                [label for source in op.inputs for label in labels[source]]
                if isinstance(op, graph.Concat)
                else labels[op.inputs[0]]
            )
            if isinstance(op, graph.Add | graph.Scale):
                channels.tie(labels[op.inputs[0]], labels[op.inputs[1]])
            continue
        labels.append(channels.new(op.shape.channels))
        if isinstance(op, graph.Conv | graph.Linear) and position not in crossed:
            makers.append(position)
            before = lowered.ops[op.inputs[0]]
            if isinstance(before, graph.Attention):  # its projection puts out what its queries read
                channels.tie(labels[lowered.ops[before.inputs[0]].inputs[0]], labels[position])
    made = {position: [channels.root(label) for label in labels[position]] for position in makers}
    return made, {channels.root(label) for label in (*labels[0], *labels[-1])}


def _makes_channels(op: graph.Op) -> bool:
    """Whether the op's channels are new ones, instead of its input's."""
    if isinstance(op, graph.Conv):
        # A gate's or a bypass's pointwise convolution of a single channel looks like a depthwise one.
        depthwise = op.groups == op.cin == op.shape.channels and (op.groups > 1 or op.kernel > 1)
        return bool(op.width) or not depthwise
    return isinstance(op, graph.Input | graph.Linear | graph.Attention)


def _fields(architecture: Architecture, lowered: Graph, ops: Sequence[int]) -> tuple[str, ...]:
    """The architecture's numbers that these ops' widths are; a bypass has none, its width follows from what it is added to."""
    named = dict.fromkeys(lowered.ops[op].width for op in ops)
    return tuple(field for field in named if field and isinstance(_value(architecture, field), int))


def _value(architecture: Architecture, field: str) -> object:
    *part, key = field.split(".")
    return getattr(architecture.head if part == ["head"] else architecture.blocks[int(part[1])], key)


def _attention_widths(lowered: Graph) -> Iterator[tuple[int, Width]]:
    """The three widths of each attention, with the position of its queries."""
    for op in lowered.ops:
        if isinstance(op, graph.Attention):
            query, key, value = (lowered.ops[source].name for source in op.inputs)
            prefix = op.name.removesuffix("attention")
            split = [(op.name, op.heads, op.value_dim), (query, op.heads, op.key_dim)]
            kept = [(key, op.kv_heads, op.key_dim), (value, op.kv_heads, op.value_dim)]
            shared = op.kv_heads < op.heads
            heads = [_by_head(*place) for place in (split if shared else split + kept)]
            yield op.inputs[0], Width(f"{prefix}heads", (f"{prefix}heads",), op.heads, tuple(heads))
            for size, places in (("key_dim", (split[1], kept[0])), ("value_dim", (split[0], kept[1]))):
                name = prefix + size
                yield op.inputs[0], Width(name, (name,), getattr(op, size), tuple(_by_size(*one) for one in places))


def _by_head(op: str, heads: int, size: int) -> Place:
    return Place(op, tuple(tuple(range(head * size, (head + 1) * size)) for head in range(heads)))


def _by_size(op: str, heads: int, size: int) -> Place:
    return Place(op, tuple(tuple(range(unit, heads * size, size)) for unit in range(size)))

"""Proposals of one trimming step: every way to make a network fast enough by a single change.

As in NetAdapt (arXiv 1804.03230) each width is narrowed by itself, to the widest count that meets the step's goal; as in
MobileNetV3 (arXiv 1905.02244 section 4.2) the widths that the blocks of a stage put out are also narrowed together; and a
residual block may go as a whole. Beyond the papers, all widths inside the blocks of a stage, or all of the network, are scaled by
one multiplier, since no single layer may bear a large step. Latency over a count is a staircase with steps up as well as down,
so counts are tried one after the other, never bisected.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from searchspace.architecture import Architecture, lower
from searchspace.width import Width, drop_block, droppable, set_widths, widths

Predict = Callable[[Architecture], float]
"""Milliseconds of an architecture; infinite where they cannot be told."""

STAGE_FIELDS = ("cout", "expand1x1", "expand3x3")  # what blocks put out, as against what they have inside
GRID = 400  # multipliers that are tried, evenly spaced below 1
DIVISOR = 8  # counts that are a multiple of it stay so, if the goal can be met like that
LOOKED_AT = 16  # narrowest counts among which the fastest network is looked for


@dataclass(frozen=True)
class Proposal:
    """One change.

    Attributes:
        kind: a single width, one count for all widths of a stage, one multiplier for several widths, or a whole block.
        what: the change for people, as in ``blocks.3.hidden 96 → 72``.
        counts: units that stay of each width that is narrowed, by its name.
        dropped: position of the block that goes, or None.
        architecture: the result.
        predicted_ms: its latency.
    """

    kind: Literal["width", "stage", "scale", "block"]
    what: str
    counts: Mapping[str, int]
    dropped: int | None
    architecture: Architecture
    predicted_ms: float


def propose(architecture: Architecture, predict: Predict, goal_ms: float) -> list[Proposal]:
    """Every proposal that meets the goal, in the order of the network; see `dominated_ones` for those not worth trying."""
    found = widths(architecture)
    groups = [("width", (width,)) for width in found] + [("stage", stage) for stage in stages(architecture, found)]
    proposals = [_narrowed(architecture, kind, group, predict, goal_ms) for kind, group in groups]  # type: ignore[arg-type]
    scales = [*insides(architecture, found), *([tuple(found)] if len(found) > 1 else [])]
    proposals += [_scaled(architecture, group, predict, goal_ms) for group in scales]
    proposals += [_dropped(architecture, index, predict, goal_ms) for index in droppable(architecture)]
    return [proposal for proposal in proposals if proposal is not None]


def dominated_ones(architecture: Architecture, proposals: Sequence[Proposal]) -> frozenset[int]:
    """Positions of those that another one contains: nowhere narrower and no slower, it can only be the more accurate."""
    found = widths(architecture)
    sizes = [_sizes(found, len(architecture.blocks), proposal) for proposal in proposals]

    def beats(one: int, other: int) -> bool:
        contains = all(mine >= theirs for mine, theirs in zip(sizes[one], sizes[other], strict=True))
        if not contains or proposals[one].predicted_ms > proposals[other].predicted_ms:
            return False
        alike = sizes[one] == sizes[other] and proposals[one].predicted_ms == proposals[other].predicted_ms
        return not alike or one < other

    everyone = range(len(proposals))
    return frozenset(index for index in everyone if any(beats(one, index) for one in everyone if one != index))


def stages(architecture: Architecture, found: Iterable[Width]) -> list[tuple[Width, ...]]:
    """Widths of one count that blocks at one resolution put out, wherever there are several."""
    return _grouped(architecture, found, lambda field, width: (field, width.count) if field in STAGE_FIELDS else None)


def insides(architecture: Architecture, found: Iterable[Width]) -> list[tuple[Width, ...]]:
    """Widths inside the blocks at one resolution, wherever there are several."""
    return _grouped(architecture, found, lambda field, _: () if field not in STAGE_FIELDS else None)


def scaled(
    architecture: Architecture, group: Sequence[Width], predict: Predict, goal_ms: float
) -> tuple[float, dict[str, int]] | None:
    """The largest multiplier of these widths whose network meets the goal, and each width's count then; None if none does."""
    for divisor in (DIVISOR, 1):
        before: dict[str, int] = {}
        for step in range(GRID - 1, 0, -1):
            counts = {width.name: multiplied(width, step / GRID, divisor) for width in group}
            if counts == before or all(counts[width.name] == width.count for width in group):
                continue
            before = counts
            if predict(set_widths(architecture, [(width, counts[width.name]) for width in group])) <= goal_ms:
                return step / GRID, counts
    return None


def multiplied(width: Width, multiplier: float, divisor: int) -> int:
    """The scaled count; heads of an attention are left as they are, as the families do."""
    if width.name.endswith(".heads"):
        return width.count
    if width.count % divisor:
        divisor = 1
    return max(divisor, round(multiplier * width.count / divisor) * divisor)


def fastest(architecture: Architecture, predict: Predict) -> tuple[Architecture, float]:
    """About the fastest network that trimming can make, and its milliseconds.

    Residual blocks are dropped where that helps; then each width in turn is set to the fastest of its narrowest counts.
    """
    for index in reversed(range(len(architecture.blocks))):
        if index in droppable(architecture):
            architecture = min(drop_block(architecture, index), architecture, key=predict)
    chosen: list[tuple[Width, int]] = []
    for width in widths(architecture):
        options = (*range(1, min(width.count, LOOKED_AT) + 1), width.count)
        trials = {count: predict(set_widths(architecture, [*chosen, (width, count)])) for count in options}
        count = min(trials, key=trials.__getitem__)
        chosen.append((width, count))
    result = set_widths(architecture, chosen)
    return result, predict(result)


def _narrowed(
    architecture: Architecture,
    kind: Literal["width", "stage"],
    group: Sequence[Width],
    predict: Predict,
    goal_ms: float,
) -> Proposal | None:
    """The group at the widest count that meets the goal; None where none does."""
    for count in range(group[0].count - 1, 0, -1):
        narrower = set_widths(architecture, [(width, count) for width in group])
        ms = predict(narrower)
        if ms <= goal_ms:
            names = group[0].name if len(group) == 1 else f"{group[0].name} … {group[-1].name}"
            what = f"{names} {group[0].count} → {count}"
            return Proposal(kind, what, {width.name: count for width in group}, None, narrower, ms)
    return None


def _scaled(architecture: Architecture, group: Sequence[Width], predict: Predict, goal_ms: float) -> Proposal | None:
    found = scaled(architecture, group, predict, goal_ms)
    if found is None:
        return None
    multiplier, counts = found
    narrower = set_widths(architecture, [(width, counts[width.name]) for width in group])
    what = f"{group[0].name} … {group[-1].name} × {multiplier:.3g}"
    return Proposal("scale", what, counts, None, narrower, predict(narrower))


def _grouped(
    architecture: Architecture, found: Iterable[Width], key: Callable[[str, Width], tuple[object, ...] | None]
) -> list[tuple[Width, ...]]:
    """Widths at one resolution that have the same key, wherever there are several; those without one are left out."""
    ops = {op.name: op for op in lower(architecture)}
    groups: dict[tuple[object, ...], list[Width]] = {}
    for width in found:
        told = key(width.fields[-1].rsplit(".", 1)[-1], width)
        if told is not None:
            place = ops[width.places[0].op].shape
            groups.setdefault((*told, place.height, place.width), []).append(width)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _dropped(architecture: Architecture, index: int, predict: Predict, goal_ms: float) -> Proposal | None:
    shorter = drop_block(architecture, index)
    ms = predict(shorter)
    return Proposal("block", f"blocks.{index} dropped", {}, index, shorter, ms) if ms <= goal_ms else None


def _sizes(found: Sequence[Width], blocks: int, proposal: Proposal) -> tuple[int, ...]:
    """Of every width and every block of the start, how much of it there is in the proposal."""
    gone = f"blocks.{proposal.dropped}."
    inside = {width.name for width in found if all(field.startswith(gone) for field in width.fields)}
    counts = [0 if width.name in inside else proposal.counts.get(width.name, width.count) for width in found]
    return (*counts, *(int(index != proposal.dropped) for index in range(blocks)))

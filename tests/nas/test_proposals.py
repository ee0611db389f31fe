"""Proposals: the widest that meets the goal, whatever shape the latency has; nothing that another contains."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.proposals import DIVISOR, Proposal, dominated_ones, fastest, insides, multiplied, propose, stages
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, Conv, Separable
from searchspace.width import set_widths, widths
from tests.searchspace.strategies import architectures

TINY = Architecture(
    (Conv(cout=12, stride=2), UIB(cout=12, hidden=20, residual=True), Conv(cout=16, kernel=1)), resolution=16, classes=4
)


def blocked_ms(architecture: Architecture) -> float:
    """A staircase that also rises where a width is not a multiple of 4, as runtimes with channel blocks have it."""
    total = 0.01
    for op in lower(architecture):
        waste = 1.0 if op.shape.channels % 4 == 0 else 1.4
        total += waste * 1e-6 * math.ceil(op.shape.channels / 4) * 4 * (op.macs / max(1, op.shape.channels))
    return total


def described(proposals: list[Proposal]) -> list[str]:
    return [proposal.what for proposal in proposals]


@settings(max_examples=20)
@given(architectures(), st.floats(0.7, 0.99))
def test_each_is_the_widest_that_meets_the_goal(architecture: Architecture, share: float) -> None:
    goal_ms = share * blocked_ms(architecture)
    by_name = {width.name: width for width in widths(architecture)}
    single = {}
    for proposal in propose(architecture, blocked_ms, goal_ms):
        assert proposal.predicted_ms == blocked_ms(proposal.architecture) <= goal_ms
        if proposal.kind == "width":
            ((name, count),) = proposal.counts.items()
            single[name] = count
    for name, width in by_name.items():
        meeting = [
            count
            for count in range(1, width.count)
            if blocked_ms(set_widths(architecture, [(width, count)])) <= goal_ms
        ]
        assert single.get(name) == max(meeting, default=None)


def test_kinds_of_proposals() -> None:
    deep = Architecture(
        (Conv(cout=16, stride=2), *(Separable(cout=16) for _ in range(3)), UIB(cout=16, hidden=32, residual=True)),
        resolution=16,
        classes=4,
    )
    found = propose(deep, blocked_ms, 0.9 * blocked_ms(deep))
    assert {proposal.kind for proposal in found} == {"width", "stage", "scale", "block"}
    assert [tuple(width.name for width in stage) for stage in stages(deep, widths(deep))] == [
        ("blocks.0.cout", "blocks.1.cout", "blocks.2.cout", "blocks.3.cout")
    ]
    stage = next(proposal for proposal in found if proposal.kind == "stage")
    assert len(set(stage.counts.values())) == 1
    assert stage.what == f"blocks.0.cout … blocks.3.cout 16 → {stage.counts['blocks.0.cout']}"
    block = next(proposal for proposal in found if proposal.kind == "block")
    assert (block.what, block.architecture.blocks) == ("blocks.4 dropped", deep.blocks[:4])


@settings(max_examples=20)
@given(architectures(), st.floats(0.7, 0.99))
def test_one_multiplier_for_many_widths(architecture: Architecture, share: float) -> None:
    goal_ms = share * blocked_ms(architecture)
    known = {width.name: width for width in widths(architecture)}
    groups = [{width.name for width in group} for group in (*insides(architecture, known.values()), known.values())]
    for proposal in propose(architecture, blocked_ms, goal_ms):
        if proposal.kind == "scale":
            assert proposal.counts.keys() in groups
            assert proposal.predicted_ms == blocked_ms(proposal.architecture) <= goal_ms
            assert all(count <= known[name].count for name, count in proposal.counts.items())
            assert any(count < known[name].count for name, count in proposal.counts.items())


def test_a_multiplier_keeps_multiples_of_8() -> None:
    wide = Architecture((Conv(cout=32), UIB(cout=32, hidden=64), Conv(cout=64)), resolution=16, classes=4)
    everything = next(one for one in propose(wide, blocked_ms, 0.7 * blocked_ms(wide)) if one.kind == "scale")
    assert len(everything.counts) == len(widths(wide))
    assert all(count % DIVISOR == 0 for count in everything.counts.values())
    assert [multiplied(width, 0.5, DIVISOR) for width in widths(wide)] == [width.count // 2 for width in widths(wide)]


@settings(max_examples=20)
@given(architectures(), st.floats(0.7, 0.99))
def test_what_is_dominated_is_contained_in_what_is_not(architecture: Architecture, share: float) -> None:
    found = propose(architecture, blocked_ms, share * blocked_ms(architecture))
    dominated = dominated_ones(architecture, found)
    kept = [one for index, one in enumerate(found) if index not in dominated]
    assert bool(kept) == bool(found)
    sizes = {id(one): lower(one.architecture).params for one in found}
    for index, one in enumerate(found):
        if index in dominated:
            assert any(
                sizes[id(other)] >= sizes[id(one)] and other.predicted_ms <= one.predicted_ms for other in kept
            ), one.what


def test_a_stage_is_skipped_where_one_of_its_widths_alone_is_no_slower() -> None:
    flat = Architecture((Conv(cout=16), Conv(cout=16, kernel=1)), resolution=16, classes=4)

    def only_the_last_counts(architecture: Architecture) -> float:
        return float(architecture.blocks[1].cout)  # type: ignore[union-attr]

    found = propose(flat, only_the_last_counts, 12.0)
    assert described(found)[:2] == ["blocks.1.cout 16 → 12", "blocks.0.cout … blocks.1.cout 16 → 12"]
    assert dominated_ones(flat, found) == {1}


def test_what_cannot_be_told_is_not_proposed() -> None:
    def only_even(architecture: Architecture) -> float:
        odd = any(width.count % 2 for width in widths(architecture))
        return math.inf if odd else blocked_ms(architecture)

    for proposal in propose(TINY, only_even, 0.8 * blocked_ms(TINY)):
        assert all(count % 2 == 0 for count in proposal.counts.values())


def test_a_goal_that_no_change_meets() -> None:
    assert propose(TINY, blocked_ms, 0.001) == []


def test_fastest_is_that_of_all_reachable_networks() -> None:
    narrow = Architecture((Conv(cout=5), UIB(cout=5, hidden=6, residual=True)), resolution=8, classes=4)
    _, least_ms = fastest(narrow, blocked_ms)
    everything = [narrow, Architecture(narrow.blocks[:1], narrow.head, 8, classes=4)]
    reachable = [
        set_widths(one, list(zip(found, counts, strict=True)))
        for one in everything
        for found in [widths(one)]
        for counts in _grid([width.count for width in found])
    ]
    assert least_ms == pytest.approx(min(blocked_ms(one) for one in reachable))


def _grid(counts: list[int]) -> list[tuple[int, ...]]:
    if not counts:
        return [()]
    return [(first, *rest) for first in range(1, counts[0] + 1) for rest in _grid(counts[1:])]

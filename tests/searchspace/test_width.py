"""Widths: what moves together is found, and every width of every architecture can be set to any count."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchspace import graph
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, ClassicHead, Conv, Fire, MultiQueryAttention, NinHead, Separable
from searchspace.errors import ArchitectureError
from searchspace.references import REFERENCES, reference
from searchspace.width import Width, drop_block, droppable, set_width, set_widths, widths
from tests.searchspace.strategies import architectures


def named(architecture: Architecture) -> dict[str, Width]:
    return {width.name: width for width in widths(architecture)}


def fields(*blocks: object) -> list[tuple[str, ...]]:
    architecture = Architecture(blocks, ClassicHead(), resolution=16, classes=5)  # type: ignore[arg-type]
    return [width.fields for width in widths(architecture)]


def test_depthwise_follows_what_it_reads() -> None:
    assert fields(Conv(cout=8), Separable(cout=12), UIB(cout=16, hidden=None, dw_mid=3)) == [
        ("blocks.0.cout",),
        ("blocks.1.cout",),
        ("blocks.2.cout",),
    ]


def test_a_residual_ties_its_two_sides() -> None:
    one, two = UIB(cout=8, hidden=16, residual=True), UIB(cout=8, hidden=24, residual=True)
    assert fields(Conv(cout=8), one, two, Conv(cout=8)) == [
        ("blocks.0.cout", "blocks.1.cout", "blocks.2.cout"),
        ("blocks.1.hidden",),
        ("blocks.2.hidden",),
        ("blocks.3.cout",),
    ]


def test_squeeze_excite_follows_what_it_scales() -> None:
    block = UIB(cout=8, hidden=16, se=4)
    found = named(Architecture((Conv(cout=8), block), ClassicHead(), resolution=16, classes=5))
    assert [place.op for place in found["blocks.1.hidden"].places] == ["blocks.1.expand", "blocks.1.se.expand"]
    assert found["blocks.1.se"].count == 4


def test_a_concatenation_is_cut_where_a_sum_demands_it() -> None:
    first = Fire(squeeze=4, expand1x1=6, expand3x3=10)
    second = Fire(squeeze=4, expand1x1=9, expand3x3=7, bypass="identity")
    architecture = Architecture((Conv(cout=8), first, second), NinHead(), resolution=16, classes=5)
    parts = {width.fields: width for width in widths(architecture)}
    assert {key: width.count for key, width in parts.items() if "squeeze" not in key[0]} == {
        ("blocks.0.cout",): 8,
        ("blocks.1.expand1x1", "blocks.2.expand1x1"): 6,
        ("blocks.1.expand3x3", "blocks.2.expand1x1"): 3,
        ("blocks.1.expand3x3", "blocks.2.expand3x3"): 7,
    }
    middle = parts["blocks.1.expand3x3", "blocks.2.expand1x1"]
    blocks = set_width(architecture, middle, 1).blocks
    assert (blocks[1].expand3x3, blocks[2].expand1x1) == (8, 7)  # type: ignore[union-attr]


def test_a_bypass_convolution_follows_the_concatenation() -> None:
    architecture = Architecture(
        (Conv(cout=8), Fire(squeeze=4, expand1x1=6, expand3x3=10, bypass="conv")), resolution=16, classes=5
    )
    found = named(architecture)
    assert [place.op for place in found["blocks.1.expand1x1"].places] == ["blocks.1.bypass", "blocks.1.expand1x1"]
    assert found["blocks.1.expand3x3"].places[0].units[0] == (6,)


@pytest.mark.parametrize("shared", [True, False])
def test_attention_has_heads_keys_and_values(shared: bool) -> None:
    block = MultiQueryAttention(heads=3, key_dim=4, value_dim=5, shared=shared, residual=False)
    architecture = Architecture((Conv(cout=8), block, Conv(cout=6)), resolution=16, classes=5)
    found = named(architecture)
    assert {name: width.count for name, width in found.items()} == {
        "blocks.0.cout": 8,
        "blocks.1.heads": 3,
        "blocks.1.key_dim": 4,
        "blocks.1.value_dim": 5,
        "blocks.2.cout": 6,
    }
    key = {place.op: place.units[1] for place in found["blocks.1.key_dim"].places}
    assert key == {"blocks.1.query": (1, 5, 9), "blocks.1.key": (1,) if shared else (1, 5, 9)}
    assert len(found["blocks.1.heads"].places) == (2 if shared else 4)
    ops = [place.op for place in found["blocks.0.cout"].places]
    assert ops == ["blocks.0.conv", "blocks.1.project"], "the projection puts out what the block reads"


def test_image_and_classes_never_move() -> None:
    from_image = UIB(cout=3, hidden=8, residual=True)
    assert fields(from_image) == [("blocks.0.hidden",)]
    nin = Architecture((Conv(cout=8),), NinHead(), resolution=16, classes=5)
    assert list(named(nin)) == ["blocks.0.cout"]


@pytest.mark.parametrize("name", REFERENCES)
def test_references_have_unique_names_and_every_field_in_a_width(name: str) -> None:
    check_widths(reference(name))


@given(architectures())
def test_sampled_architectures_too(architecture: Architecture) -> None:
    check_widths(architecture)


def check_widths(architecture: Architecture) -> None:
    found = widths(architecture)
    assert len({width.name for width in found}) == len(found)
    ops = {op.name: op for op in lower(architecture)}
    covered: dict[str, int] = {}
    for width in found:
        for place in width.places:
            assert len(place.units) == width.count
        for field in width.fields:
            covered[field] = covered.get(field, 0) + width.count
    for op in ops.values():
        if op.width and not op.width.endswith("bypass"):
            part = (
                architecture.head if op.width.startswith("head") else architecture.blocks[int(op.width.split(".")[1])]
            )
            assert covered[op.width] == getattr(part, op.width.split(".")[-1]), op.width


@given(architectures(), st.data())
def test_any_width_can_take_any_count(architecture: Architecture, data: st.DataObject) -> None:
    width = data.draw(st.sampled_from(widths(architecture)))
    count = data.draw(st.integers(1, width.count))
    narrowed = set_width(architecture, width, count)
    again = {other.fields: other.count for other in widths(narrowed)}
    assert again[width.fields] == count
    others = {other.fields: other.count for other in widths(architecture) if other != width}
    assert {key: value for key, value in again.items() if key != width.fields} == others
    assert set_width(architecture, width, width.count) == architecture
    assert narrowed.classes == lower(narrowed).output.shape.channels


@given(architectures())
def test_all_widths_together(architecture: Architecture) -> None:
    smallest = set_widths(architecture, [(width, 1) for width in widths(architecture)])
    shares = Counter(op for width in widths(architecture) for op in {place.op for place in width.places})
    narrow = [op for op in lower(smallest).ops if isinstance(op, graph.Conv) and op.name in shares]
    assert narrow
    assert all(op.shape.channels <= shares[op.name] for op in narrow)
    assert {width.count for width in widths(smallest)} <= {1}


@given(architectures())
def test_residual_blocks_can_be_dropped(architecture: Architecture) -> None:
    for index in droppable(architecture):
        shorter = drop_block(architecture, index)
        assert shorter.shapes == architecture.shapes[: index + 1] + architecture.shapes[index + 2 :]


def test_refusals() -> None:
    architecture = Architecture((Conv(cout=8), Conv(cout=8)), resolution=16, classes=5)
    with pytest.raises(ArchitectureError, match=r"blocks\.0\.cout: a width must be at least 1, got 0"):
        set_width(architecture, widths(architecture)[0], 0)
    with pytest.raises(ArchitectureError, match="only a residual block can be dropped"):
        drop_block(architecture, 1)


def test_a_gate_of_one_channel_has_a_width_of_its_own() -> None:
    """Its pointwise convolution from one channel to one is no depthwise one, which would pass its input's channel on."""
    blocks = (Conv(cout=8), UIB(cout=8, hidden=1, dw_mid=0, se=1, residual=True))
    fields = {width.fields for width in widths(Architecture(blocks, ClassicHead(), resolution=16))}
    assert {("blocks.1.hidden",), ("blocks.1.se",)} <= fields

"""What is said of an architecture adds up, and two architectures differ exactly where they do."""

import dataclasses

import pytest
from hypothesis import given, settings

from nas.description import changes, describe, rows
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, ClassicHead, Conv
from searchspace.graph import Norm
from searchspace.references import REFERENCES, reference
from tests.searchspace.strategies import architectures


@given(architectures())
@settings(max_examples=50)
def test_rows_and_layers_add_up_to_the_network(architecture: Architecture) -> None:
    lowered = lower(architecture)
    table = rows(architecture)
    assert len(table) == len(architecture.blocks) + 1
    assert sum(row.params for row in table) == lowered.params
    assert sum(row.macs for row in table) == lowered.macs
    told = describe(architecture)
    in_layers = sum(layer["params"] + layer["norm_params"] for layer in told["layers"])
    others = sum(op.params for op in lowered if op.kind in ("normalize", "layer_scale"))
    assert in_layers + others == told["params"] == lowered.params
    attention = sum(op.macs for op in lowered if op.kind == "attention")
    assert sum(layer["macs"] for layer in told["layers"]) + attention == told["macs"]


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_has_a_row_for_every_block(name: str) -> None:
    table = rows(reference(name))
    assert [row.place for row in table[:-1]] == [f"blocks.{index}" for index in range(len(table) - 1)]
    assert all(row.operator and row.out for row in table)
    assert table[-1].place == "head"


def test_rows_read_like_the_papers() -> None:
    hybrid = {row.place: row for row in rows(reference("mobilenet_v4_hybrid_m"))}
    assert (hybrid["blocks.2"].operator, hybrid["blocks.2"].hidden, hybrid["blocks.2"].out) == (
        "ExtraDW 3×3, 5×5",
        "192",
        "80",
    )
    assert hybrid["blocks.8"].operator == "MQA 4 heads, kv /2"
    large = rows(reference("mobilenet_v3_large"))[4]
    assert (large.operator, large.extras, large.stride) == ("IB 5×5", "SE 24", "2")
    fire = rows(reference("squeezenet_1_0_complex_bypass"))[2]
    assert (fire.hidden, fire.out, fire.extras) == ("16 → 64 + 64", "128", "conv bypass")


@pytest.mark.parametrize("name", REFERENCES)
def test_the_same_network_does_not_differ(name: str) -> None:
    assert changes(reference(name), dataclasses.replace(reference(name), name="other")) == []


def test_widths_before_and_after() -> None:
    before = Architecture(
        (Conv(cout=16), UIB(cout=24, hidden=64), UIB(cout=24, hidden=96, residual=True)), resolution=32
    )
    after = Architecture(
        (Conv(cout=16), UIB(cout=16, hidden=56), UIB(cout=16, hidden=96, residual=True)), resolution=32
    )
    found = [(change.place, change.fields) for change in changes(before, after)]
    assert found == [("blocks.1", {"cout": (24, 16), "hidden": (64, 56)}), ("blocks.2", {"cout": (24, 16)})]


def test_inserted_and_replaced_blocks_and_settings() -> None:
    before = Architecture((Conv(cout=16), UIB(cout=16, hidden=64)), resolution=32)
    longer = dataclasses.replace(before, blocks=(before.blocks[0], Conv(cout=8), before.blocks[1]))
    (inserted,) = changes(before, longer)
    assert (inserted.place, inserted.fields) == ("blocks.1", {"+": (None, "conv cout=8")})
    (removed,) = changes(longer, before)
    assert removed.fields == {"-": ("conv cout=8", None)}
    swapped = dataclasses.replace(before, blocks=(before.blocks[0], Conv(cout=16)))
    assert [list(change.fields) for change in changes(before, swapped)] == [["-"], ["+"]]
    other = dataclasses.replace(
        before, resolution=64, classes=10, norm=Norm(epsilon=1e-3), head=ClassicHead(dropout=0.2)
    )
    assert {change.place: list(change.fields) for change in changes(before, other)} == {
        "resolution": ["resolution"],
        "classes": ["classes"],
        "norm": ["norm"],
        "head": ["dropout"],
    }


@given(architectures(), architectures())
@settings(max_examples=50)
def test_there_are_changes_exactly_between_different_networks(one: Architecture, other: Architecture) -> None:
    assert (changes(one, other) == []) == (one == other)


def test_blocks_around_dropped_ones_are_compared_with_what_they_were() -> None:
    residual = UIB(cout=48, hidden=192, residual=True)
    before = (Conv(cout=48), UIB(cout=48, hidden=96, stride=2), residual, UIB(cout=96, hidden=384, stride=2))
    after = (before[0], dataclasses.replace(before[1], hidden=40), dataclasses.replace(before[3], hidden=200))
    found = changes(Architecture(before, resolution=32), Architecture(after, resolution=32))
    assert [(change.place, set(change.fields)) for change in found] == [
        ("blocks.1", {"hidden"}),
        ("blocks.2", {"-"}),
        ("blocks.3", {"hidden"}),
    ]

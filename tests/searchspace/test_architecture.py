"""Architectures are values: they survive JSON, compare by content and refuse what does not fit."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchspace.architecture import Architecture, lower, lower_block, lower_head
from searchspace.blocks import UIB, ClassicHead, Conv, Fire, MobileNetHead, NinHead, Pool
from searchspace.errors import ArchitectureError, NasError
from searchspace.graph import Shape
from tests.searchspace.strategies import architectures

SMALL = Architecture((Conv(cout=8), UIB(cout=8, hidden=16, residual=True)), resolution=16, classes=4, name="small")


@given(architectures())
def test_json_round_trip_keeps_value_and_fingerprint(architecture: Architecture) -> None:
    again = Architecture.from_text(architecture.to_json())
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.fingerprint == architecture.fingerprint


@given(architectures(), architectures())
def test_fingerprints_agree_exactly_when_architectures_do(one: Architecture, other: Architecture) -> None:
    assert (one == other) == (one.fingerprint == other.fingerprint)


@given(architectures())
def test_shapes_follow_the_lowered_graph(architecture: Architecture) -> None:
    graph = lower(architecture)
    shapes = {op.name.split(".")[1]: op.shape for op in graph if op.name.startswith("blocks.")}
    assert tuple(shapes.values()) == architecture.shapes[1:]
    assert graph.output.shape == Shape(architecture.classes, 1, 1)
    assert len({op.name for op in graph}) == len(graph)


@given(architectures())
def test_blocks_lowered_one_by_one_make_the_whole(architecture: Architecture) -> None:
    parts = [
        lower_block(block, shape, architecture.norm)
        for block, shape in zip(architecture.blocks, architecture.shapes[:-1], strict=True)
    ]
    parts.append(
        lower_head(architecture.head, architecture.shapes[-1], classes=architecture.classes, norm=architecture.norm)
    )
    whole = lower(architecture)
    ops = [op for part in parts for op in part[1:]]
    assert [op.shape for op in ops] == [op.shape for op in whole.ops[1:]]
    assert sum(op.params for op in ops) == whole.params
    assert sum(op.macs for op in ops) == whole.macs


@given(architectures())
def test_peak_activation_bytes_lie_between_largest_map_and_all_maps(architecture: Architecture) -> None:
    graph = lower(architecture)
    sizes = [4 * op.shape.values for op in graph]
    assert max(sizes) <= graph.peak_activation_bytes <= sum(sizes)


def test_peak_activation_bytes_of_a_residual_counted_by_hand() -> None:
    # 16×16: input 3, then 8; in the block 8 (kept for the shortcut) + 16 + 16 while the depthwise layer runs
    assert lower(SMALL).peak_activation_bytes == 4 * 16 * 16 * (8 + 16 + 16)


def test_name_is_not_part_of_the_value() -> None:
    renamed = dataclasses.replace(SMALL, name="other")
    assert renamed == SMALL
    assert renamed.fingerprint == SMALL.fingerprint


def test_fingerprint_is_pinned() -> None:
    # names of files people keep: a change of this value breaks every cache and study
    assert SMALL.fingerprint == "707790b5f12aafd3"


def test_text_has_one_line_a_block() -> None:
    lines = str(SMALL).splitlines()
    assert len(lines) == 1 + len(SMALL.blocks) + 1
    assert "uib" in lines[2]
    assert "8×16×16" in lines[2]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: UIB(cout=8, hidden=8, dw_mid=0, stride=2),
            "stride 2 needs a depthwise kernel, got dw_start=0 and dw_mid=0",
        ),
        (lambda: UIB(cout=8, hidden=8, stride=2, residual=True), "a residual needs stride 1, got stride=2"),
        (lambda: UIB(cout=8, hidden=None, dw_mid=0), "needs dw_mid"),
        (lambda: UIB(cout=8, hidden=8, dw_mid=4), "dw_mid must be 0, 1, 3, 5 or 7, got 4"),
        (lambda: Conv(cout=0), "cout must be a whole number from 1, got 0"),
        (lambda: Conv(cout=8, activation="tanh"), "activation must be one of"),  # type: ignore[arg-type]
        (lambda: Fire(squeeze=8, expand1x1=8, expand3x3=8, bypass="add"), "bypass must be none, identity or conv"),  # type: ignore[arg-type]
        (lambda: Pool(padding=2), "padding must be in [0, kernel / 2], got 2 with kernel=3"),
        (lambda: MobileNetHead(hidden=8, dropout=1.0), "dropout must be in [0, 1), got 1.0"),
        (lambda: Architecture(()), "needs at least one block"),
        (lambda: Architecture((Conv(cout=8),), resolution=0), "resolution must be a whole number from 1, got 0"),
        (
            lambda: Architecture((Conv(cout=8), UIB(cout=16, hidden=8, residual=True))),
            "block 1 (UIB): a residual needs as many channels in as out, got 8 in and 16 out",
        ),
        (
            lambda: Architecture((Conv(cout=8), Fire(squeeze=8, expand1x1=8, expand3x3=8, bypass="identity"))),
            "block 1 (Fire): an identity bypass needs as many channels in as out, got 8 in and 16 out",
        ),
        (
            lambda: Architecture((Conv(cout=8, kernel=7, padding=0),), resolution=4),
            "block 0 (Conv): a window of 7 px must fit into 4 px padded by 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_values(make: object, message: str) -> None:
    with pytest.raises(ArchitectureError) as refused:
        make()  # type: ignore[operator]
    assert message in str(refused.value)


def _edited(**changes: object) -> str:
    return json.dumps({**SMALL.to_dict(), **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_edited(depth=3), "architecture: unknown key 'depth'"),
        (_edited(format=2), "format must be 1, got 2"),
        (_edited(blocks={}), "blocks must be a list, got dict"),
        (_edited(blocks=[{"block": "dense"}]), "block 0: 'block' must be one of conv, separable"),
        (_edited(blocks=[{"block": "conv", "cout": 8, "groups": 2}]), "block 0 (Conv): unknown key 'groups'"),
        (_edited(blocks=[{"block": "conv"}]), "block 0 (Conv): key 'cout' is missing"),
        (
            _edited(blocks=[{"block": "conv", "cout": "8"}]),
            "block 0 (Conv): cout must be a whole number from 1, got '8'",
        ),
        (
            _edited(blocks=[{"block": "uib", "cout": 8, "hidden": 8, "residual": "yes"}]),
            "residual must be true or false, got 'yes'",
        ),
        (_edited(head={"head": "classic", "dropout": "much"}), "head (ClassicHead): a value has the wrong type"),
        (_edited(norm=3), "norm: must be a mapping, got int"),
        ("[1, 2]", "must hold one mapping, got list"),
        ("blocks: [unclosed", "not JSON or YAML"),
        ('{"format": 1, "head": {"head": "classic"}}', "key 'blocks' is missing"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_the_place(text: str, message: str) -> None:
    with pytest.raises(NasError) as refused:
        Architecture.from_text(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.sampled_from([ClassicHead(dropout=0.5), MobileNetHead(hidden=9, norm=False), NinHead(activation=None)]))
def test_heads_round_trip(head: ClassicHead | MobileNetHead | NinHead) -> None:
    architecture = dataclasses.replace(SMALL, head=head, norm=None)
    assert Architecture.from_text(architecture.to_json()) == architecture


def test_yaml_is_read_like_json() -> None:
    text = "format: 1\nresolution: 16\nclasses: 4\nnorm: {epsilon: 1e-3}\nblocks: [{block: conv, cout: 8}]\nhead: {head: nin}\n"
    architecture = Architecture.from_text(text)
    assert architecture.norm is not None
    assert architecture.norm.epsilon == 0.001
    assert architecture.head == NinHead()

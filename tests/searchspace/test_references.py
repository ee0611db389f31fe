"""The published architectures against the published and independently computed counts, layer by layer."""

import json
from typing import Any

import pytest
import yaml

from searchspace import graph
from searchspace.architecture import Architecture, lower
from searchspace.errors import ArchitectureError
from searchspace.references import REFERENCES, reference, squeezenet
from searchspace.references.mobilenet4 import hybrid_m_paper_table
from searchspace.references.scaling import round_to_eights
from tests.shared import REFERENCE, needs_reference

# Reference -> where its counts are in architectures.yaml, at the resolution it is published with.
COUNTS = {
    "mobilenet_v1": ("mobilenetv1", "computed_own"),
    "mobilenet_v1_full_conv": ("mobilenetv1", "full_convolution_variant", "computed_own"),
    "mobilenet_v2": ("mobilenetv2", "computed_own"),
    "mobilenet_v3_large": ("mobilenetv3_large", "computed_own"),
    "mobilenet_v3_small": ("mobilenetv3_small", "computed_own"),
    "mobilenet_v4_conv_s": ("mobilenetv4_conv_small", "computed_own"),
    "mobilenet_v4_conv_m": ("mobilenetv4_conv_medium", "computed_own"),
    "mobilenet_v4_conv_l": ("mobilenetv4_conv_large", "computed_own"),
    "mobilenet_v4_hybrid_m": ("mobilenetv4_hybrid_medium", "computed_own"),
    "mobilenet_v4_hybrid_l": ("mobilenetv4_hybrid_large", "computed_own"),
    "squeezenet_1_0": ("squeezenet", "v1_0", "computed_own_227"),
    "squeezenet_1_0_simple_bypass": ("squeezenet", "v1_0", "computed_own_227"),
    "squeezenet_1_0_complex_bypass": ("squeezenet", "complex_bypass", "computed_own"),
    "squeezenet_1_1": ("squeezenet", "v1_1", "computed_own_227"),
}

# Layer file -> the reference it describes, and at which α and resolution.
LAYERS: dict[str, tuple[str, float, int | None]] = {
    "timm_mobilenetv1_100": ("mobilenet_v1", 1.0, None),
    "own_mobilenetv1_fullconv": ("mobilenet_v1_full_conv", 1.0, None),
    "timm_mobilenetv2_100": ("mobilenet_v2", 1.0, None),
    "tv_mobilenet_v2": ("mobilenet_v2", 1.0, None),
    "timm_mobilenetv3_large_100": ("mobilenet_v3_large", 1.0, None),
    "timm_mobilenetv3_large_075": ("mobilenet_v3_large", 0.75, None),
    "tv_mobilenet_v3_large": ("mobilenet_v3_large", 1.0, None),
    "timm_mobilenetv3_small_100": ("mobilenet_v3_small", 1.0, None),
    "timm_mobilenetv3_small_075": ("mobilenet_v3_small", 0.75, None),
    "tv_mobilenet_v3_small": ("mobilenet_v3_small", 1.0, None),
    "timm_mobilenetv4_conv_small": ("mobilenet_v4_conv_s", 1.0, None),
    "timm_mobilenetv4_conv_small_r256": ("mobilenet_v4_conv_s", 1.0, 256),
    "timm_mobilenetv4_conv_medium": ("mobilenet_v4_conv_m", 1.0, None),
    "timm_mobilenetv4_conv_medium_r224": ("mobilenet_v4_conv_m", 1.0, 224),
    "timm_mobilenetv4_conv_large": ("mobilenet_v4_conv_l", 1.0, None),
    "timm_mobilenetv4_conv_large_r256": ("mobilenet_v4_conv_l", 1.0, 256),
    "timm_mobilenetv4_hybrid_medium": ("mobilenet_v4_hybrid_m", 1.0, None),
    "timm_mobilenetv4_hybrid_medium_r224": ("mobilenet_v4_hybrid_m", 1.0, 224),
    "timm_mobilenetv4_hybrid_large": ("mobilenet_v4_hybrid_l", 1.0, None),
    "tv_squeezenet1_0": ("squeezenet_1_0", 1.0, 224),
    "tv_squeezenet1_0_r227": ("squeezenet_1_0", 1.0, None),
    "own_squeezenet1_0_complex_bypass": ("squeezenet_1_0_complex_bypass", 1.0, None),
    "tv_squeezenet1_1": ("squeezenet_1_1", 1.0, 224),
    "tv_squeezenet1_1_r227": ("squeezenet_1_1", 1.0, None),
}

Row = tuple[int | bool, ...]


def facts(*keys: str) -> Any:
    found = yaml.safe_load((REFERENCE / "architectures.yaml").read_text())
    for key in keys:
        found = found[key]
    return found


def layers(lowered: graph.Graph) -> list[Row]:
    """(cin, cout, kernel, stride, groups, bias, out height, out width, params, MACs) of each convolution and linear layer."""
    rows: list[Row] = []
    for op in lowered:
        match op:
            case graph.Conv():
                own = op.params - 2 * op.shape.channels if op.norm else op.params
                rows.append(
                    (op.cin, op.shape[0], op.kernel, op.stride, op.groups, op.bias, *op.shape[1:], own, op.macs)
                )
            case graph.Linear():
                rows.append((op.cin, op.shape[0], 1, 1, 1, True, 1, 1, op.params, op.macs))
    return rows


def published_layers(name: str) -> list[Row]:
    keys = ("cin", "cout", "k", "stride", "groups", "bias", "out_h", "out_w", "params", "macs")
    return [tuple(layer[key] for key in keys) for layer in json.loads(layer_file(name))["layers"]]


def layer_file(name: str) -> str:
    return (REFERENCE / "layers" / f"{name}.json").read_text()


def attentions(lowered: graph.Graph) -> list[Row]:
    return [
        (op.heads, op.key_dim, op.value_dim, op.shape.height * op.shape.width, op.kv_tokens, op.macs)
        for op in lowered
        if isinstance(op, graph.Attention)
    ]


@needs_reference
def test_every_reference_is_compared() -> None:
    assert set(COUNTS) == set(REFERENCES)
    assert {name for name, _, _ in LAYERS.values()} == set(REFERENCES) - {"squeezenet_1_0_simple_bypass"}


@needs_reference
@pytest.mark.parametrize("name", REFERENCES)
def test_counts_equal_the_computed_ones(name: str) -> None:
    expected = facts(*COUNTS[name])
    lowered = lower(reference(name))
    assert lowered.params == expected["params_trainable"]
    assert lowered.macs == expected["macs_total"]
    factors = sum(
        op.shape.channels for op in lowered if isinstance(op, graph.Normalize)
    )  # with nothing to fold them into
    assert lowered.weights_bytes == 4 * (expected["params_bn_folded"] + factors)
    assert sum(op.macs for op in lowered if isinstance(op, graph.Attention)) == expected["macs_attention_matmul"]
    assert sum(op.params for op in lowered if isinstance(op, graph.LayerScale)) == expected["params_layer_scale"]


@needs_reference
@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_the_published_ones_in_order(name: str) -> None:
    reference_name, width_multiplier, resolution = LAYERS[name]
    lowered = lower(reference(reference_name, width_multiplier=width_multiplier, resolution=resolution))
    assert layers(lowered) == published_layers(name)
    expected = json.loads(layer_file(name))
    assert (lowered.params, lowered.macs) == (expected["params_trainable"], expected["macs_total"])
    assert attentions(lowered) == published_attentions(expected)


def published_attentions(layers_of: dict[str, Any]) -> list[Row]:
    keys = ("heads", "key_dim", "value_dim", "q_tokens", "kv_tokens")
    rows = layers_of.get("attention", [])
    return [(*(row[key] for key in keys), row["qk_macs"] + row["av_macs"]) for row in rows]


@needs_reference
def test_hybrid_m_as_printed_in_the_paper() -> None:
    lowered = lower(hybrid_m_paper_table())
    name = "own_mobilenetv4_hybrid_medium_paper_table"
    assert layers(lowered) == published_layers(name)
    assert attentions(lowered) == published_attentions(json.loads(layer_file(name)))
    assert lowered.params == facts("mobilenetv4_hybrid_medium_paper_table", "computed_own", "params_trainable")


@needs_reference
@pytest.mark.parametrize(("name", "family"), [("mobilenet_v1", "mobilenetv1"), ("mobilenet_v2", "mobilenetv2")])
def test_grid_of_width_and_resolution(name: str, family: str) -> None:
    for point in facts(family, "computed_grid"):
        lowered = lower(reference(name, width_multiplier=point["alpha"], resolution=point["resolution"]))
        assert (lowered.params, lowered.macs) == (point["params_trainable"], point["macs"]), point


@needs_reference
@pytest.mark.parametrize("metaparameter", ["squeeze_ratio", "pct3x3"])
def test_squeezenet_exploration(metaparameter: str) -> None:
    fixed = {"squeeze_ratio": {"pct3x3": 0.5}, "pct3x3": {"squeeze_ratio": 0.5}}[metaparameter]
    for value, params in facts("squeezenet", "exploration", metaparameter, "computed_params").items():
        explored = squeezenet(**{metaparameter: float(value), **fixed})  # type: ignore[arg-type]
        assert lower(explored).params == params, value


def test_squeezenet_1_0_is_one_point_of_the_metaparameters() -> None:
    assert squeezenet() == reference("squeezenet_1_0")
    assert squeezenet(bypass="complex") == reference("squeezenet_1_0_complex_bypass")
    assert len(squeezenet(modules=4, pool_after=(1,)).blocks) == 6


@pytest.mark.parametrize("bad", [{"pct3x3": 1.0}, {"pct3x3": 0.0}, {"squeeze_ratio": 1.5}, {"freq": 0}, {"base_e": 0}])
def test_squeezenet_refuses_metaparameters_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(ArchitectureError):
        squeezenet(**bad)


@pytest.mark.parametrize("name", REFERENCES)
def test_json_round_trip(name: str) -> None:
    published = reference(name, classes=10, channels=1)
    again = Architecture.from_text(published.to_json())
    assert again == published
    assert (again.name, again.fingerprint) == (published.name, published.fingerprint)


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("width_multiplier", [0.1, 0.35, 0.5, 0.9, 1.4, 2.0])
def test_width_multiplier_gives_multiples_of_eight_everywhere(name: str, width_multiplier: float) -> None:
    lowered = lower(reference(name, width_multiplier=width_multiplier))
    widths = {op.shape.channels for op in lowered if isinstance(op, graph.Conv) and op.width}
    assert all(width % 8 == 0 for width in widths), sorted(widths)


def test_rounding_follows_the_ten_percent_rule() -> None:
    assert [round_to_eights(width) for width in (1, 8, 11.2, 12, 18, 22.4, 40)] == [8, 8, 16, 16, 24, 24, 40]


def test_exceptions_of_the_families() -> None:
    v2 = reference("mobilenet_v2", width_multiplier=0.35)
    assert v2.shapes[-1].channels == 1280
    assert reference("mobilenet_v2", width_multiplier=1.4).shapes[-1].channels == 1792
    v3 = reference("mobilenet_v3_large", width_multiplier=0.5)
    assert v3.shapes[1].channels == 16
    assert v3.head.hidden == 1280  # type: ignore[union-attr]


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ArchitectureError, match="did you mean mobilenet_v3_large"):
        reference("mobilenet_v3_larg")
    with pytest.raises(ArchitectureError, match="known are mobilenet_v1, "):
        reference("resnet")


@pytest.mark.parametrize(
    "bad",
    [
        {"width_multiplier": 0.0},
        {"width_multiplier": float("nan")},
        {"resolution": 0},
        {"classes": 0},
        {"channels": -1},
    ],
)
def test_values_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ArchitectureError):
        reference("mobilenet_v2", **bad)

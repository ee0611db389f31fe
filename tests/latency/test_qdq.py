"""Networks of 8-bit integers: they compute what they should, and run as the kernels by rule."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from latency.fake import FakeDevice
from latency.features import kind, network_quantities, quantities, weight_bytes
from latency.kernel import Entry, Kernel
from latency.kernel_check import check_rules
from latency.model import LatencyModel
from latency.planning import block_plan, head_plan, kernels
from latency.profiling import profile_target
from latency.qdq import to_qdq
from latency.samples import varied_architectures
from latency.settings import RuntimeSettings
from latency.stand_in import stand_in
from latency.target import load_target
from searchspace.architecture import Architecture, lower
from searchspace.blocks import Conv, Separable
from searchspace.onnx_graph import check, random_weights, to_onnx
from searchspace.references import REFERENCES
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from tests.latency.architectures import wild_architecture
from tests.latency.profiled import QUICK

DEVICE = FakeDevice()  # optimises with the real runtime of this machine
SETTINGS = RuntimeSettings(precision="int8")
BLOCK = DEVICE.describe().nchwc_block


def differences(architecture: Architecture) -> list[str]:
    graph = lower(architecture)
    optimized = DEVICE.optimize(stand_in(graph, "int8"), settings=SETTINGS)
    return check_rules(graph, optimized, nchwc_block=BLOCK, precision="int8")


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_rules_are_exact_on_sampled_architectures(first):
    space = load_space("default")
    for seed in range(first, first + 20):
        adapted = space.adapt(channels=(1, 3)[seed % 2], classes=10, resolution=(8, 28, 32, 64)[seed % 4])
        assert differences(adapted.sample(RandomSuggest(seed))) == []


@pytest.mark.parametrize("first", range(0, 150, 50))
def test_rules_are_exact_on_architectures_from_anywhere(first):
    for seed in range(first, first + 50):
        architecture = wild_architecture(seed)
        assert differences(architecture) == [], str(architecture)


@pytest.mark.parametrize("name", REFERENCES)
def test_rules_are_exact_on_published_networks(name):
    resolution = 64 if not name.startswith("squeeze") else 96
    assert differences(dataclasses.replace(REFERENCES[name](0.5), resolution=resolution, classes=10)) == []


def test_a_float32_model_does_not_pass_for_one_of_integers():
    graph = lower(wild_architecture(3))
    optimized = DEVICE.optimize(stand_in(graph, "fp32"), settings=SETTINGS)
    assert check_rules(graph, optimized, nchwc_block=BLOCK, precision="int8")


def test_blocks_planned_one_by_one_give_the_kernels_of_the_whole():
    for seed in range(100):
        architecture = wild_architecture(seed)
        found: list[Kernel] = []
        entry = Entry()
        for part, shape in zip(architecture.blocks, architecture.shapes[:-1], strict=True):
            planned = block_plan(part, shape, entry, norm=architecture.norm, nchwc_block=BLOCK, precision="int8")
            found += planned.kernels
            entry = planned.exit
        found += head_plan(
            architecture.head,
            architecture.shapes[-1],
            entry,
            classes=10,
            norm=architecture.norm,
            nchwc_block=BLOCK,
            precision="int8",
        )
        assert sorted(found) == sorted(kernels(lower(architecture), nchwc_block=BLOCK, precision="int8"))


def test_macs_are_those_of_the_graph():
    for build in REFERENCES.values():
        graph = lower(build(1.0))
        assert sum(kernel.macs for kernel in kernels(graph, nchwc_block=BLOCK, precision="int8")) == graph.macs


@pytest.mark.parametrize("seed", range(12))
def test_with_the_ranges_of_its_values_it_computes_what_the_float32_model_does(seed):
    graph = lower(wild_architecture(seed))
    model = to_onnx(graph, random_weights(graph))
    image = {"image": np.random.default_rng(seed).standard_normal((1, *graph.ops[0].shape)).astype(np.float32)}
    exact = DEVICE.outputs(model, image, settings=SETTINGS)["logits"]
    quantized = to_qdq(model, _ranges(model, image))
    check(quantized)
    found = DEVICE.outputs(quantized, image, settings=SETTINGS)["logits"]
    assert np.abs(found - exact).max() < 0.12 * max(np.abs(exact).max(), np.ptp(exact))


def _ranges(model: bytes, image: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """The least and the greatest number in each value while the model runs."""
    traced = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    traced.graph.output.extend(value for value in traced.graph.value_info)
    outputs = DEVICE.outputs(traced.SerializeToString(), image, settings=SETTINGS)
    return {name: (float(array.min()), float(array.max())) for name, array in {**outputs, **image}.items()}


def test_an_8_bit_target_measures_and_predicts_8_bit_networks(tmp_path: Path):
    types: set[str] = set()

    class Looking(FakeDevice):
        def measure(self, models, **options):
            for model in models:
                types.update(node.op_type for node in onnx.load_from_string(model).graph.node)
            return super().measure(models, **options)

    target = load_target("host-int8")
    model = profile_target(
        target, varied_architectures(0), networks=60, device=Looking(), effort=QUICK, folder=tmp_path
    )
    assert "QuantizeLinear" in types
    assert model.settings.precision == "int8"
    assert "nhwc pointwise" in model.measured
    assert not [name for name in model.measured if name.startswith("nchwc")]
    assert model.held_out.median_error < 0.1
    [path] = tmp_path.glob("*.json")
    again = LatencyModel.load(path)
    for architecture in itertools.islice(varied_architectures(0), 20):
        whole = kernels(lower(architecture), nchwc_block=BLOCK, precision="int8")
        expected = again.kernels_ms(whole) + again.memory_ms(weight_bytes(whole)) + again.weights["network"]
        assert again.predict_ms(architecture) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("cin", "cout", "fast"),
    [
        (16, 16, (True, True)),
        (16, 24, (True, True)),
        (16, 20, (False, True)),  # AVX2 takes multiples of 8, AVX-512 of 4
        (20, 32, (True, True)),
        (18, 32, (False, False)),
        (16, 8, (False, False)),
        (3, 32, (False, False)),
    ],
)
def test_widths_decide_which_loop_an_integer_convolution_takes(cin, cout, fast):
    network = Architecture((Conv(cout=cin, stride=2), Conv(cout=cout)), resolution=32, classes=10)
    for block, wanted in zip((8, 16), fast, strict=True):
        planned = kernels(lower(network), nchwc_block=block, precision="int8")
        found = next(one for one in planned if one.op == "QLinearConv" and one.source.channels == cin)
        assert found.requantized == wanted
        assert (kind(found) == "integer product") != wanted


def test_an_integer_convolution_of_an_unfit_width_costs_more_arithmetic_than_the_next_fit_one():
    def macs(channels: int) -> float:
        network = Architecture((Conv(cout=channels),), resolution=32, classes=10)
        planned = kernels(lower(network), nchwc_block=8, precision="int8")
        return network_quantities(planned, nchwc_block=8)["integer product:macs"]

    assert macs(17) == macs(31) == macs(32) == 2 * macs(16)


@pytest.mark.parametrize("block", [1, 8, 16])
def test_a_depthwise_convolution_takes_the_fast_loop_by_its_channels(block):
    def depthwise(channels: int) -> Kernel:
        network = Architecture((Conv(cout=channels), Separable(cout=32)), resolution=32, classes=10)
        planned = kernels(lower(network), nchwc_block=block, precision="int8")
        return next(one for one in planned if one.groups > 1)

    assert depthwise(32).requantized and not depthwise(36).requantized
    assert depthwise(24).requantized == (block == 1)
    tail = f"{kind(depthwise(36))}:tail"
    assert quantities([depthwise(36)], nchwc_block=block)[tail] > 0
    assert tail not in quantities([depthwise(48 + 24)], nchwc_block=block)

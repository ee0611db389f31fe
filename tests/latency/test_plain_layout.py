"""The rules where the runtime has no layout of channel blocks, as on arm64: shown here by leaving its NCHWc transform out.

With that transform left out the runtime of this machine makes of a network what it makes of it on arm64, where the transform does
nothing.
"""

import dataclasses

import onnx
import onnxruntime
import pytest

from latency.features import kind, quantities
from latency.kernel_check import check_rules
from latency.layout import nchwc_block, probe_model
from latency.planning import kernels
from latency.settings import Precision
from latency.stand_in import stand_in
from searchspace.architecture import Architecture, lower
from searchspace.blocks import Conv
from searchspace.references import REFERENCES
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from tests.latency.architectures import wild_architecture

PRECISIONS = ("fp32", "int8")


@pytest.fixture
def optimized(tmp_path):
    def without_blocks(model: bytes) -> bytes:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
        )
        return (tmp_path / "optimized.onnx").read_bytes()

    return without_blocks


def differences(architecture: Architecture, optimized, precision: Precision) -> list[str]:
    graph = lower(architecture)
    return check_rules(graph, optimized(stand_in(graph, precision)), nchwc_block=1, precision=precision)


def sampled(seed: int) -> Architecture:
    space = load_space("default").adapt(channels=(1, 3)[seed % 2], classes=10, resolution=(8, 28, 32, 64)[seed % 4])
    return space.sample(RandomSuggest(seed))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 120), marks=pytest.mark.slow)], ids=str)
def test_rules_are_exact_on_sampled_architectures(optimized, seeds, precision):
    for seed in seeds:
        assert differences(sampled(seed), optimized, precision) == []


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 200), marks=pytest.mark.slow)], ids=str)
def test_rules_are_exact_on_architectures_from_anywhere(optimized, seeds, precision):
    for seed in seeds:
        architecture = wild_architecture(seed)
        assert differences(architecture, optimized, precision) == [], str(architecture)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_rules_are_exact_on_published_networks(optimized, precision):
    for name, build in REFERENCES.items():
        resolution = 96 if name.startswith("squeeze") else 64
        architecture = dataclasses.replace(build(0.5), resolution=resolution, classes=10)
        assert differences(architecture, optimized, precision) == [], name


def test_the_rules_of_the_blocked_layout_do_not_hold(optimized):
    graph = lower(sampled(0))
    assert check_rules(graph, optimized(stand_in(graph, "fp32")), nchwc_block=8)


def test_the_probe_tells_that_there_are_no_blocks(optimized):
    found = optimized(probe_model())
    assert [node.op_type for node in onnx.load_from_string(found).graph.node] == ["Conv"]
    assert nchwc_block(found) == 1


def test_products_have_arm64_s_tiles():
    """Tiles of 4 by 16 floats: up to 4 output channels more cost no more than their arithmetic, an odd one stalls."""

    def rows(channels: int) -> float:
        architecture = Architecture((Conv(cout=channels),), resolution=8)
        first = kernels(lower(architecture), nchwc_block=1)[0]
        return quantities([first], nchwc_block=1).get(f"{kind(first)}:rows", 0.0)

    assert [rows(channels) > 0 for channels in (12, 13, 14, 15, 16)] == [False, True, False, True, False]


def test_windows_are_copied_by_lines_and_what_four_numbers_do_not_fill_one_by_one():
    """A 3×3 window on rows of 8: of 8, 7 and 7 numbers inside, 0, 3 + 1 and 3 + 1 are single ones."""
    architecture = Architecture((Conv(cout=5, kernel=3, stride=1),), resolution=8, channels=1)
    first = next(one for one in kernels(lower(architecture), nchwc_block=1) if one.convolves)
    found = quantities([first], nchwc_block=1)
    assert found[f"{kind(first)}:lines"] == 8 * 9
    assert found[f"{kind(first)}:singles"] == 8 * 3 * (4 + 4)


def test_arm64_s_depthwise_loop_is_not_unfolded():
    shapes = set()
    for seed in range(40):
        for kernel in kernels(lower(wild_architecture(seed)), nchwc_block=1):
            if kernel.convolves and kernel.groups > 1 and kernel.kernel > 1:
                found = quantities([kernel], nchwc_block=1)
                direct = (kernel.kernel, kernel.stride) == (3, 1)
                assert (f"{kind(kernel)}:taps" in found) == direct
                assert bool({f"{kind(kernel)}:unfold", f"{kind(kernel)}:gather"} & set(found)) != direct
                shapes.add(direct)
    assert shapes == {True, False}

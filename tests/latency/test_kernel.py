"""The kernels by rule must be exactly the nodes that ONNX Runtime executes."""

import dataclasses

import pytest

from latency.fake import FakeDevice
from latency.kernel import Entry, Kernel
from latency.kernel_check import check_rules
from latency.planning import block_plan, head_plan, kernels
from latency.settings import RuntimeSettings
from searchspace.architecture import Architecture, lower
from searchspace.onnx_graph import random_weights, to_onnx
from searchspace.references import REFERENCES
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from tests.latency.architectures import wild_architecture

DEVICE = FakeDevice()  # optimises with the real runtime of this machine
BLOCK = DEVICE.describe().nchwc_block


def differences(architecture: Architecture, *, graph_level: str = "all") -> list[str]:
    graph = lower(architecture)
    model = to_onnx(graph, random_weights(graph))
    optimized = DEVICE.optimize(model, settings=RuntimeSettings(graph_level=graph_level))
    return check_rules(graph, optimized, nchwc_block=BLOCK)


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_rules_are_exact_on_sampled_architectures(first):
    space = load_space("default")
    for seed in range(first, first + 20):
        adapted = space.adapt(channels=(1, 3)[seed % 2], classes=10, resolution=(8, 28, 32, 64)[seed % 4])
        assert differences(adapted.sample(RandomSuggest(seed))) == []


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_rules_are_exact_on_architectures_from_anywhere(first):
    for seed in range(first, first + 50):
        architecture = wild_architecture(seed)
        assert differences(architecture) == [], str(architecture)


@pytest.mark.parametrize("name", REFERENCES)
def test_rules_are_exact_on_published_networks(name):
    resolution = 64 if not name.startswith("squeeze") else 96
    assert differences(dataclasses.replace(REFERENCES[name](0.5), resolution=resolution, classes=10)) == []


def test_a_runtime_that_fuses_otherwise_is_noticed():
    architecture = wild_architecture(3)
    assert differences(architecture, graph_level="extended")
    graph = lower(architecture)
    unoptimised = to_onnx(graph, random_weights(graph))
    found = check_rules(graph, unoptimised, nchwc_block=BLOCK)
    assert any(line.startswith("expected") for line in found)
    assert any(line.startswith("found") for line in found)


@pytest.mark.parametrize("block", [1, 8, 16])
def test_blocks_planned_one_by_one_give_the_kernels_of_the_whole(block):
    """Cutting a network at its blocks changes nothing: that is what allows a prediction to be cached by block."""
    for seed in range(100):
        architecture = wild_architecture(seed)
        options = {"norm": architecture.norm, "nchwc_block": block}
        found: list[Kernel] = []
        entry = Entry()
        for part, shape in zip(architecture.blocks, architecture.shapes[:-1], strict=True):
            planned = block_plan(part, shape, entry, **options)
            found += planned.kernels
            entry = planned.exit
        found += head_plan(architecture.head, architecture.shapes[-1], entry, classes=10, **options)
        assert sorted(found) == sorted(kernels(lower(architecture), nchwc_block=block))


def test_without_the_blocked_layout_nothing_is_reordered():
    for seed in range(60):
        found = kernels(lower(wild_architecture(seed)), nchwc_block=1)
        assert {kernel.layout for kernel in found} == {"nchw"}
        assert not [kernel for kernel in found if kernel.op.startswith("Reorder")]


@pytest.mark.parametrize("block", [1, 8, 16])
def test_macs_and_weights_are_those_of_the_graph(block):
    for name in REFERENCES:
        graph = lower(REFERENCES[name](1.0))
        found = kernels(graph, nchwc_block=block)
        norms = sum(kernel.macs for kernel in found if kernel.bias and kernel.groups > 1 and kernel.kernel == 1)
        assert sum(kernel.macs for kernel in found) - norms == graph.macs

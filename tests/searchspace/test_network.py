"""The torch module: its tensors are the graph's, its start is the published one, its outputs are the ONNX model's."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from searchspace.architecture import Architecture, lower
from searchspace.blocks import (
    UIB,
    Block,
    ClassicHead,
    Conv,
    Fire,
    FusedBottleneck,
    Head,
    MobileNetHead,
    MultiQueryAttention,
    NinHead,
    Pool,
    Separable,
)
from searchspace.graph import ACTIVATIONS, Norm
from searchspace.network import Network
from searchspace.onnx_graph import check, fold, to_onnx
from searchspace.references import REFERENCES, reference
from tests.searchspace.strategies import architectures

BLOCKS: list[Block] = [
    *(Conv(cout=16, activation=activation) for activation in (*ACTIVATIONS, None)),
    Conv(cout=16, kernel=7, stride=2, padding=0),
    Conv(cout=12, kernel=2, stride=2, padding=1),
    Separable(cout=20, kernel=5, stride=2, activation="silu"),
    UIB(cout=8, hidden=24, residual=True, layer_scale=0.3),
    UIB(cout=16, hidden=24, dw_start=3, dw_mid=5, stride=2, activation="gelu"),
    UIB(cout=16, hidden=24, dw_start=5, dw_mid=0, stride=2, activation="hard_swish"),
    UIB(cout=8, hidden=24, dw_mid=0, residual=True),
    UIB(cout=8, hidden=None, se=4, residual=True),
    UIB(cout=16, hidden=24, se=8, se_gate="sigmoid", activation="silu"),
    FusedBottleneck(cout=16, hidden=24, stride=2, activation="relu6"),
    FusedBottleneck(cout=8, hidden=24, se=8, residual=True),
    Fire(squeeze=4, expand1x1=8, expand3x3=8),
    Fire(squeeze=4, expand1x1=3, expand3x3=5, bypass="identity"),
    Fire(squeeze=4, expand1x1=8, expand3x3=8, bypass="conv"),
    *(
        MultiQueryAttention(heads=4, key_dim=6, value_dim=5, kv_stride=kv_stride, shared=shared, residual=residual)
        for kv_stride in (1, 2)
        for shared in (True, False)
        for residual in (True, False)
    ),
    MultiQueryAttention(heads=1, key_dim=8, value_dim=8, layer_scale=None),
    *(Pool(kernel=kernel, stride=2, ceil=ceil) for kernel in (2, 3) for ceil in (True, False)),
    Pool(kernel=3, stride=1, padding=1),
    Pool(function="avg", kernel=2, stride=2),
    Pool(function="avg", kernel=3, stride=2, padding=1),
    Pool(function="avg", kernel=3, stride=2, ceil=True),
    Pool(function="avg", kernel=3, stride=2, padding=1, ceil=True),
]
HEADS: list[Head] = [
    ClassicHead(dropout=0.2),
    MobileNetHead(hidden=24, activation="hard_swish"),
    MobileNetHead(hidden=24, norm=False, dropout=0.1),
    NinHead(),
    NinHead(activation=None),
]


def randomised(architecture: Architecture) -> Network:
    """A network in use: every parameter and statistic is something, so that nothing can hide behind a one or a zero."""
    torch.manual_seed(0)
    network = Network(architecture).eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0)
            elif tensor.ndim == 1:
                tensor.add_(0.3 * torch.randn_like(tensor))
    return network


def assert_onnx_runtime_agrees(architecture: Architecture, *, batch: int | None = 2) -> None:
    network = randomised(architecture)
    lowered = lower(architecture)
    weights = fold(lowered, {name: tensor.numpy() for name, tensor in network.state_dict().items()})
    assert sum(value.nbytes for value in weights.values()) == lowered.weights_bytes
    model = to_onnx(lowered, weights, batch=batch)
    check(model)
    images = torch.randn(2, *architecture.input_shape)
    with torch.no_grad():
        expected = network(images).numpy()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    got: Any = session.run(None, {"image": images.numpy()})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("norm", [Norm(), Norm(epsilon=1e-3, momentum=0.01), None])
@pytest.mark.parametrize("block", BLOCKS, ids=repr)
def test_each_block_is_the_same_in_torch_and_onnx_runtime(block: Block, norm: Norm | None) -> None:
    assert_onnx_runtime_agrees(Architecture((Conv(cout=8), block), resolution=18, classes=5, norm=norm))


@pytest.mark.parametrize("batch", [2, None])
@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_each_head_is_the_same_in_torch_and_onnx_runtime(head: Head, batch: int | None) -> None:
    blocks = (Conv(cout=8), MultiQueryAttention(heads=2, key_dim=4, value_dim=4, kv_stride=2))
    assert_onnx_runtime_agrees(Architecture(blocks, head, resolution=9, channels=1, classes=5), batch=batch)


@given(architectures())
@settings(max_examples=25, deadline=None)
def test_whole_networks_are_the_same_in_torch_and_onnx_runtime(architecture: Architecture) -> None:
    assert_onnx_runtime_agrees(architecture)


@pytest.mark.parametrize("name", REFERENCES)
def test_parameters_are_the_graphs(name: str) -> None:
    with torch.device("meta"):
        network = Network(reference(name))
    lowered = lower(reference(name))
    assert sum(parameter.numel() for parameter in network.parameters()) == lowered.params
    owners = {name.rpartition(".")[0].removesuffix(".norm") for name, _ in network.named_parameters()}
    with_parameters = {op.name for op in lowered if op.params}
    assert owners | {owner + ".norm" for owner in owners} >= with_parameters
    assert not any("pool" in owner for owner in owners)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v4_hybrid_m", "squeezenet_1_0"])
def test_gradients_reach_every_parameter_in_training(name: str) -> None:
    torch.manual_seed(0)
    network = Network(reference(name, resolution=64, classes=4)).train()
    loss = nn.functional.cross_entropy(network(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), parameter_name
    assert loss.item() == pytest.approx(np.log(4), rel=0.5)


def test_initialisation_is_the_published_one() -> None:
    torch.manual_seed(0)
    hybrid = Network(reference("mobilenet_v4_hybrid_m")).state_dict()
    assert spread(hybrid["blocks.17.expand.weight"]) == pytest.approx((2 / 1024) ** 0.5, rel=0.02)  # He, fan out
    assert spread(hybrid["blocks.17.dw_mid.weight"]) == pytest.approx(
        (2 / 25) ** 0.5, rel=0.02
    )  # each channel by itself
    query = hybrid["blocks.8.query.weight"]
    assert query.abs().max() <= (6 / (160 + 256)) ** 0.5  # Xavier, uniform
    assert spread(query) == pytest.approx((2 / (160 + 256)) ** 0.5, rel=0.02)
    assert bool((hybrid["blocks.8.layer_scale.weight"] == 1e-5).all())
    assert spread(hybrid["head.classifier.weight"]) == pytest.approx(0.01, rel=0.02)
    assert not hybrid["head.classifier.bias"].any()
    squeezenet = Network(reference("squeezenet_1_0")).state_dict()
    assert spread(squeezenet["blocks.11.expand3x3.weight"]) == pytest.approx(
        (2 / (64 * 9)) ** 0.5, rel=0.02
    )  # He, fan in
    assert spread(squeezenet["head.classifier.weight"]) == pytest.approx(0.01, rel=0.02)


def spread(tensor: torch.Tensor) -> float:
    return float(tensor.std())


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_small", "mobilenet_v4_conv_s", "squeezenet_1_1"])
def test_activations_keep_their_scale_at_the_start(name: str) -> None:
    torch.manual_seed(0)
    network = Network(reference(name, resolution=64)).train()
    seen: list[float] = []
    for module_name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and not module_name.startswith("head."):
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(float(output.detach().std())))
    network(torch.randn(8, 3, 64, 64))
    assert 0.05 < min(seen) < max(seen) < 20


def test_dropout_acts_in_training_only() -> None:
    network = randomised(Architecture((Conv(cout=64),), ClassicHead(dropout=0.5), resolution=8))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(network(images), network(images))
    network.train()
    assert not torch.equal(network(images), network(images))


def test_batch_normalisation_follows_the_architectures_epsilon_and_momentum() -> None:
    norms = [
        module for module in Network(reference("mobilenet_v3_small")).modules() if isinstance(module, nn.BatchNorm2d)
    ]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in Network(reference("squeezenet_1_1")).modules())

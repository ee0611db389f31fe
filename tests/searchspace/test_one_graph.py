"""One graph, many consumers: torch and ONNX Runtime compute the same, and the graph counts what torch counts."""

import copy
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from searchspace.architecture import Architecture, lower
from searchspace.blocks import Conv, NinHead, Pool
from searchspace.network import Network
from searchspace.onnx_graph import IR_VERSION, OPSET, check, fold, random_weights, to_onnx
from searchspace.sampling import RandomSuggest
from searchspace.space import Space
from tests.searchspace.strategies import DEFAULT, EVERYTHING, architectures

thorough = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])


def trained_a_little(architecture: Architecture, seed: int = 0) -> Network:
    """A network whose normalisations have seen something, so that folding them matters."""
    torch.manual_seed(seed)
    network = Network(architecture).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.uniform_(module.bias, -0.5, 0.5)
        network(torch.randn(4, *architecture.input_shape))
    return network.eval()


def onnx_logits(model: bytes, images: torch.Tensor) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {"image": images.numpy()})[0]
    return result


@given(architectures(EVERYTHING), st.integers(0, 99))
@thorough
def test_onnx_runtime_gives_torch_s_logits(architecture: Architecture, seed: int) -> None:
    network = trained_a_little(architecture, seed)
    images = torch.randn(2, *architecture.input_shape)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    model = to_onnx(lower(architecture), fold(lower(architecture), state), batch=2)
    with torch.inference_mode():
        wanted = network(images).numpy()
    assert np.abs(onnx_logits(model, images) - wanted).max() <= 1e-4 * max(np.abs(wanted).max(), 1e-3)


@given(architectures(EVERYTHING))
@thorough
def test_the_graph_counts_torch_s_parameters_and_macs(architecture: Architecture) -> None:
    graph = lower(architecture)
    with torch.device("meta"):
        network = Network(architecture).eval()
    assert graph.params == sum(parameter.numel() for parameter in network.parameters())
    counter = FlopCounterMode(display=False)
    with counter, torch.device("meta"):
        network(torch.empty(1, *architecture.input_shape))
    attention = sum(op.macs for op in graph if op.kind == "attention")
    assert counter.get_total_flops() in (
        2 * graph.macs,
        2 * (graph.macs - attention),
    )  # not every torch counts attention


@given(architectures(EVERYTHING))
@settings(max_examples=30)
def test_deployed_weights_are_what_the_cost_says(architecture: Architecture) -> None:
    graph = lower(architecture)
    weights = random_weights(graph)
    assert sum(array.nbytes for array in weights.values()) == graph.weights_bytes
    model = to_onnx(graph, weights)
    check(model)
    loaded = onnx.load_from_string(model)
    assert loaded.ir_version == IR_VERSION
    assert [entry.version for entry in loaded.opset_import] == [OPSET]


@pytest.mark.parametrize("space", [DEFAULT, EVERYTHING], ids=["default", "everything"])
def test_an_open_batch_runs_any_number_of_images(space: Space) -> None:
    architecture = space.sample(RandomSuggest(5))
    graph = lower(architecture)
    model = to_onnx(graph, random_weights(graph), batch=None)
    images = torch.randn(5, *architecture.input_shape)
    together = onnx_logits(model, images)
    for index in range(5):
        np.testing.assert_allclose(
            onnx_logits(model, images[index : index + 1]), together[index : index + 1], atol=1e-5
        )


@pytest.mark.parametrize("function", ["max", "avg"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"), [(3, 2, 0, True), (3, 2, 1, False), (2, 2, 0, True), (3, 2, 1, True)]
)
def test_pools_agree_whatever_their_rounding(function: str, kernel: int, stride: int, padding: int, ceil: bool) -> None:
    pool = Pool(function=function, kernel=kernel, stride=stride, padding=padding, ceil=ceil)  # type: ignore[arg-type]
    for resolution in (7, 8, 9, 12):
        architecture = Architecture((Conv(cout=8), pool), NinHead(), resolution=resolution, classes=3)
        network = trained_a_little(architecture)
        images = torch.randn(1, *architecture.input_shape)
        graph = lower(architecture)
        state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        with torch.inference_mode():
            wanted = network(images).numpy()
        np.testing.assert_allclose(onnx_logits(to_onnx(graph, fold(graph, state)), images), wanted, atol=1e-5)


def test_a_copy_is_a_network_of_its_own() -> None:
    network = Network(DEFAULT.sample(RandomSuggest(0))).eval()
    copied = copy.deepcopy(network).train()
    images = torch.randn(8, *DEFAULT.sample(RandomSuggest(0)).input_shape)
    with torch.inference_mode():
        assert torch.equal(network(images), network(images))  # its dropout is still off
        assert not torch.equal(copied(images), copied(images))


@given(architectures(EVERYTHING))
@settings(max_examples=20)
def test_training_reaches_every_parameter(architecture: Architecture) -> None:
    network = Network(architecture).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.nn.functional.cross_entropy(
            network(torch.randn(4, *architecture.input_shape)), torch.arange(4)
        ).backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not missing


def test_the_same_seed_starts_the_same() -> None:
    architecture = EVERYTHING.sample(RandomSuggest(2))
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(Network(architecture).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

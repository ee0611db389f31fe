"""Rounded weights: on the quantiser's levels, and closer to what a layer says than weights rounded to the nearest."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from nas.deployment import noise, onnx_model, random_checkpoint
from nas.shipping import int8
from nas.shipping.rounding import LEVELS, _Layer, rounded
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, ClassicHead, Conv

ARCHITECTURE = Architecture(
    (Conv(cout=16, stride=2), UIB(cout=24, hidden=64, dw_start=3, dw_mid=5, se=8)),
    head=ClassicHead(),
    resolution=16,
    classes=5,
)


@pytest.fixture(scope="module")
def model() -> bytes:
    return onnx_model(random_checkpoint(ARCHITECTURE), batch=None)


def test_weights_are_on_the_levels_that_the_quantiser_uses(model: bytes) -> None:
    images = noise(ARCHITECTURE, images=64)
    found = rounded(model, int8._parts(images))
    layers = [node for node in onnx.load_from_string(model).graph.node if node.op_type in ("Conv", "Gemm")]
    assert set(found) == {node.name for node in layers}
    quantized = onnx.load_from_string(int8._static(model, images, weights=found))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    for node in layers:
        weights = numpy_helper.to_array(found[node.name])
        levels, scales = (stored[f"{node.input[1]}_{what}"] for what in ("quantized", "scale"))
        assert np.abs(levels.astype(int)).max() <= LEVELS, "products of two weights must fit into 16 bits"
        again = levels.astype(np.float64) * scales.reshape(-1, *[1] * (levels.ndim - 1))
        np.testing.assert_allclose(again, weights, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("groups", [1, 4])
def test_a_layers_outputs_change_less_than_by_rounding_to_the_nearest(seed: int, groups: int) -> None:
    """Where its inputs go together; judged on inputs that the rounding has not seen."""
    source = torch.Generator().manual_seed(seed)
    mixing = torch.randn(16, 16, generator=source)
    seen, unseen = (
        torch.einsum("nchw,cd->ndhw", torch.randn(64, 16, 8, 8, generator=source), mixing).relu() for _ in range(2)
    )
    weights = 0.1 * torch.randn(8, 16 // groups, 3, 3, generator=source)
    layer = _Layer(onnx.NodeProto(), weights.numpy(), groups, kernel=3, stride=1, padding=1)
    layer.watch(seen)
    flat = weights.flatten(1)
    step = flat.abs().amax(1, keepdim=True) / LEVELS
    nearest = ((flat / step).round() * step).reshape(weights.shape)

    def error(changed: torch.Tensor) -> float:
        return float(F.conv2d(unseen, changed - weights, padding=1, groups=groups).square().mean())

    assert error(torch.from_numpy(layer.rounded())) < 0.95 * error(nearest)

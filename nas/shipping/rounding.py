"""Weights rounded to few levels so that a layer's outputs change least, rather than each weight (GPTQ, arXiv 2210.17323).

Weights of an output channel are rounded one after the other, those on the strongest inputs first; the error of each is made
good by those that are still to come, as far as their inputs go together on calibration images. The levels are those that ONNX
Runtime's quantiser will use, so it finds every weight on one of them and changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from torch import Tensor

from searchspace.onnx_graph import INPUT

LEVELS = 64
"""A weight is one of −64 … 64 steps: 7 bits, since processors without 8-bit dot products add two products in 16 bits, where
255 · 127 · 2 would not fit and 255 · 64 · 2 does."""
MOST_INPUTS = 1280  # weights of an output channel; layers of more are rounded to the nearest
POSITIONS = 256  # of a feature map that are looked at, in each image
DAMPING = 0.01  # of the mean input's strength, added to all

Array = NDArray[np.float32]


def rounded(model: bytes, parts: Iterable[Mapping[str, Array]]) -> dict[str, onnx.TensorProto]:
    """The weights of a model's convolutions and linear layers on the levels that they will be quantised to, by the layer's name.

    Args:
        model: float32, serialised.
        parts: calibration images, as the model takes them.
    """
    made = onnx.load_from_string(model)
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    layers = [layer for node in made.graph.node if (layer := _layer(node, tensors))]
    _watch(made, layers, parts)
    return {layer.node.name: numpy_helper.from_array(layer.rounded(), layer.node.input[1]) for layer in layers}


@dataclass
class _Layer:
    """A convolution or linear layer, and how its inputs go together."""

    node: NodeProto
    weights: Array
    groups: int
    kernel: int
    stride: int
    padding: int
    together: Tensor = field(init=False)  # (groups, inputs, inputs): sums of products

    def __post_init__(self) -> None:
        inputs = self.weights[0].size
        self.together = torch.zeros(self.groups, inputs, inputs)

    def watch(self, values: Tensor) -> None:
        """Add what comes in: (N, C, H, W), or (N, inputs) for a linear layer."""
        if values.ndim == 4:
            patches = F.unfold(values, self.kernel, padding=self.padding, stride=self.stride)
            step = -(-patches.shape[2] // POSITIONS)
            values = patches[:, :, ::step].permute(0, 2, 1).flatten(0, 1)
        grouped = values.reshape(len(values), self.groups, -1).transpose(0, 1)
        self.together += grouped.transpose(1, 2) @ grouped

    def rounded(self) -> Array:
        """The weights on their levels."""
        flat = torch.from_numpy(self.weights.reshape(len(self.weights), -1).copy()).double()
        per = len(flat) // self.groups
        parts = [
            _rounded(part, together.double())
            for part, together in zip(torch.split(flat, per), self.together, strict=True)
        ]
        return torch.cat(parts).float().numpy().reshape(self.weights.shape)


def _layer(node: NodeProto, tensors: Mapping[str, onnx.TensorProto]) -> _Layer | None:
    """A node as a layer whose weights may be rounded; None if it is none."""
    if node.op_type not in ("Conv", "Gemm") or node.input[1] not in tensors:
        return None
    weights = numpy_helper.to_array(tensors[node.input[1]])
    if weights[0].size > MOST_INPUTS:
        return None
    says = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    square = {
        name: says.get(name, [default])[0] for name, default in (("kernel_shape", 1), ("strides", 1), ("pads", 0))
    }
    return _Layer(node, weights, says.get("group", 1), *square.values())


def _watch(model: onnx.ModelProto, layers: list[_Layer], parts: Iterable[Mapping[str, Array]]) -> None:
    """Run the model on the images and let each layer see its inputs."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    wanted = sorted({layer.node.input[0] for layer in layers} - {INPUT})
    seen.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted)
    session = onnxruntime.InferenceSession(seen.SerializeToString(), providers=["CPUExecutionProvider"])
    for part in parts:
        values = dict(zip(wanted, session.run(wanted, part), strict=True)) if wanted else {}
        values[INPUT] = part[INPUT]
        for layer in layers:
            layer.watch(torch.from_numpy(values[layer.node.input[0]]))


def _rounded(weights: Tensor, together: Tensor) -> Tensor:
    """Weights (channels, inputs) on levels, given how the inputs go together (inputs, inputs); both float64."""
    largest, at = weights.abs().max(1)
    step = torch.where(largest > 0, largest / LEVELS, 1.0)
    together = together + (DAMPING * together.diagonal().mean() + 1e-12) * torch.eye(len(together))
    order = together.diagonal().argsort(descending=True)
    left = weights[:, order].clone()
    at = order.argsort()[at]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(together[order][:, order]))
    share = torch.linalg.cholesky(inverse, upper=True)
    done = torch.empty_like(left)
    for place in range(left.shape[1]):
        now = left[:, place]
        level = (now / step).round().clamp(-LEVELS, LEVELS)
        level = torch.where(at == place, LEVELS * weights[:, order[place]].sign(), level)  # the scale hangs on it
        done[:, place] = level * step
        left[:, place + 1 :] -= torch.outer((now - done[:, place]) / share[place, place], share[place, place + 1 :])
    return done[:, order.argsort()]

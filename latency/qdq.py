"""A float32 ONNX model as an 8-bit one in QDQ form, written down directly: milliseconds instead of a quantiser's seconds.

Activations become uint8 with one scale and zero point a value, weights int8 with one scale an output channel, biases int32.
ReLU and ReLU6 disappear: a quantised value that cannot be negative saturates there by itself. What 8 bits have no kernel for
(hard-swish, a normalisation by itself, softmax) stays float32 between a dequantise and a quantise.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

Range = tuple[float, float]

LARGEST_WEIGHT = (
    63  # 7 bits: processors without dot products of bytes add two products up in 16 bits, where 8 would overflow
)
USUAL: Range = (-6.0, 6.0)  # where no range is known: integer kernels take as long whatever the values are
WEIGHTED = ("Conv", "Gemm")
ATTENTION = ("Reshape", "Transpose", "MatMul", "Softmax")  # attention: nothing between its products is quantised
UNCHANGED = ("MaxPool", "Flatten")  # their outputs are some of their inputs, so the scale is the same
CUT_OFF = ("Relu", "Clip")


def to_qdq(model: bytes, ranges: Mapping[str, Range] | None = None) -> bytes:
    """The QDQ form of a model that `searchspace.onnx_graph.to_onnx` made.

    Args:
        model: float32, serialised.
        ranges: least and greatest number seen in each value, by its name in the model. Without them, or for a value that is not
            there, `USUAL` is assumed: enough to measure how fast the model is, not to use it.
    """
    return _Quantizer(onnx.load_from_string(model), ranges or {}).quantized()


class _Quantizer:
    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
        self.model = model
        self.ranges = ranges
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.uses = Counter(name for node in model.graph.node for name in node.input)
        self.readers = {name: node for node in model.graph.node for name in node.input}
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}
        self.values: dict[str, str] = {}  # a value's name in the float32 model, to its dequantised one here
        self.scales: dict[str, tuple[np.float32, np.uint8]] = {}  # scale and zero point of the dequantised ones

    def quantized(self) -> bytes:
        """The whole model."""
        graph = self.model.graph
        self._quantize(graph.input[0].name)
        for node in graph.node:
            self._add(node, last=node.output[0] == graph.output[0].name)
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.tensors.values())
        serialized: bytes = self.model.SerializeToString()
        return serialized

    def _add(self, node: NodeProto, *, last: bool) -> None:
        source, result = node.input[0], node.output[0]
        if node.op_type in CUT_OFF and self._saturates(source):
            self.values[result] = self.values[source]
            return
        added = NodeProto()
        added.CopyFrom(node)
        for position, name in enumerate(node.input):
            if name in self.values:
                added.input[position] = self.values[name]
            elif name in self.weights and node.op_type not in WEIGHTED:
                self.tensors[name] = self.weights[name]
        if node.op_type in WEIGHTED:
            added.input[1:] = self._weights(node)
        self.nodes.append(added)
        if last or self._inside_attention(node):
            return
        if node.op_type in UNCHANGED:
            self._quantize(result, self.scales[self.values[source]])
        else:
            self._quantize(result)

    def _saturates(self, name: str) -> bool:
        """Whether the value is only read by the activation after it, so that quantising it cuts it off as well."""
        return self.uses[name] == 1 and name in self.values

    def _inside_attention(self, node: NodeProto) -> bool:
        """Whether node and readers of its result belong to an attention."""
        floating = node.op_type in ATTENTION or node.input[0] not in self.values
        return floating and self.readers[node.output[0]].op_type in (*ATTENTION, "Mul")

    def _quantize(self, name: str, scale: tuple[np.float32, np.uint8] | None = None) -> None:
        """Append the two nodes that quantise a value and dequantise it again."""
        reader = self.readers.get(name)
        if scale is None and reader is not None and reader.op_type in CUT_OFF and self.uses[name] == 1:
            low, high = self.ranges.get(reader.output[0], (0.0, 6.0))
            scale = _uint8(max(low, 0.0), high)
        scale = scale or _uint8(*self.ranges.get(name, USUAL))
        parts = [self._tensor(f"{name}:scale", scale[0]), self._tensor(f"{name}:zero", scale[1])]
        self.nodes.append(helper.make_node("QuantizeLinear", [name, *parts], [f"{name}:q"], name=f"{name}:q"))
        self.nodes.append(
            helper.make_node("DequantizeLinear", [f"{name}:q", *parts], [f"{name}:dq"], name=f"{name}:dq")
        )
        self.values[name] = f"{name}:dq"
        self.scales[f"{name}:dq"] = scale

    def _weights(self, node: NodeProto) -> list[str]:
        """Names of the dequantised weight and bias of a convolution or a linear layer."""
        weight = numpy_helper.to_array(self.weights[node.input[1]]).astype(np.float32)
        rows = weight.reshape(len(weight), -1)
        scale = np.maximum(np.abs(rows).max(axis=1) / LARGEST_WEIGHT, 1e-12).astype(np.float32)
        integers = np.rint(rows / scale[:, None]).astype(np.int8).reshape(weight.shape)
        names = [self._dequantized(node.input[1], integers, scale)]
        if len(node.input) > 2:
            bias = numpy_helper.to_array(self.weights[node.input[2]])
            step = scale * self.scales[self.values[node.input[0]]][0]
            limit = 2**31 - 1
            integers = np.clip(np.rint(bias / step.astype(np.float64)), -limit, limit).astype(np.int32)
            names.append(self._dequantized(node.input[2], integers, step))
        return names

    def _dequantized(self, name: str, integers: NDArray[np.integer], scale: NDArray[np.float32]) -> str:
        inputs = [
            self._tensor(f"{name}:q", integers),
            self._tensor(f"{name}:scale", scale),
            self._tensor(f"{name}:zero", np.zeros(len(scale), integers.dtype)),
        ]
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}:dq"], name=f"{name}:dq", axis=0))
        return f"{name}:dq"

    def _tensor(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        self.tensors[name] = numpy_helper.from_array(np.asarray(value), name)
        return name


def _uint8(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point that hold a range and zero; zero is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255, 1e-8))
    return scale, np.uint8(round(min(255.0, -low / float(scale))))

"""The ONNX model of a graph: what is measured on a device and what is shipped are made by the same code.

Batch normalisations and layer scales are folded into the convolutions before them, hard-swish and hard-sigmoid are single ONNX
ops, dropout is gone: the runtime gets nothing it would have to clean up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from searchspace import graph
from searchspace.graph import Graph

Array = NDArray[np.float32]
OPSET = 20  # the first with Gelu
IR_VERSION = 9
INPUT, OUTPUT = "image", "logits"


def to_onnx(lowered: Graph, weights: Mapping[str, Array], *, batch: int | None = 1) -> bytes:
    """Serialised ONNX model with input ``image`` (batch, C, H, W) and output ``logits`` (batch, classes), float32.

    Args:
        lowered: the network.
        weights: deployed weights by name, from `fold` or `random_weights`.
        batch: images per run; None leaves it open.
    """
    made = onnx.GraphProto(name="pocketnas")
    emitter = _Emitter(weights, made)
    for index, op in enumerate(lowered.ops):
        emitter.emit(index, op)
    made.node[-1].output[0] = OUTPUT
    first = "batch" if batch is None else batch
    shapes = [first, *lowered.ops[0].shape], [first, lowered.output.shape.channels]
    made.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shapes[0]))
    made.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shapes[1]))
    header = onnx.ModelProto(ir_version=IR_VERSION, producer_name="pocketnas")
    header.opset_import.append(helper.make_opsetid("", OPSET))
    pieces = [made.SerializeToString(), *emitter.tensors]
    length = sum(len(piece) for piece in pieces)
    return b"".join([header.SerializeToString(), _begin(_GRAPH_IN_MODEL, length), *pieces])


def check(model: bytes) -> None:
    """Let ONNX's own checker look at a serialised model, shapes included.

    Raises:
        onnx.checker.ValidationError: the model breaks the standard (a defect of ours).
    """
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)


def fold(lowered: Graph, state: Mapping[str, Array]) -> dict[str, Array]:
    """Deployed weights from a trained network's state (names as in `searchspace.network`, values as float32 arrays).

    Batch normalisations and layer scales disappear into the weights and biases before them.
    """
    weights: dict[str, Array] = {}
    for op in lowered.ops:
        match op:
            case graph.Conv():
                _fold_convolution(op, state, weights)
            case graph.Linear():
                weights[f"{op.name}.weight"] = state[f"{op.name}.weight"]
                weights[f"{op.name}.bias"] = state[f"{op.name}.bias"]
            case graph.Normalize():
                scale, offset = _affine(op.name, op.norm, state)
                weights[f"{op.name}.weight"], weights[f"{op.name}.bias"] = scale, offset
            case graph.LayerScale():
                source = lowered.ops[op.inputs[0]].name
                gamma = state[f"{op.name}.weight"]
                weights[f"{source}.weight"] = weights[f"{source}.weight"] * gamma[:, None, None, None]
                if f"{source}.bias" in weights:
                    weights[f"{source}.bias"] = weights[f"{source}.bias"] * gamma
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}


def random_weights(lowered: Graph, *, seed: int = 0) -> dict[str, Array]:
    """Deployed weights drawn so that activations keep their scale: enough to measure a network that was never trained.

    Every convolution is scaled by the size of what it reads, which sums on residual paths let grow: in an attention, scores of
    hundreds would make the softmax put out denormal numbers, with which a processor takes up to twenty times as long.
    """
    source = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    sizes: list[float] = []  # estimated root mean square of each op's result
    for op in lowered.ops:
        inputs = [sizes[position] for position in op.inputs]
        sizes.append(_size(op, inputs))
        match op:
            case graph.Conv() | graph.Linear():
                shape = weight_shape(op)
                limit = (3.0 / np.prod(shape[1:])) ** 0.5 / inputs[0]
                drawn = source.random(shape, dtype=np.float32)
                drawn -= 0.5
                drawn *= np.float32(2 * limit)
                weights[f"{op.name}.weight"] = drawn
                if isinstance(op, graph.Linear) or op.bias or op.norm:
                    weights[f"{op.name}.bias"] = np.full(op.shape.channels, 0.01, np.float32)
            case graph.Normalize():
                weights[f"{op.name}.weight"] = np.full(op.shape.channels, 1 / inputs[0], np.float32)
                weights[f"{op.name}.bias"] = np.zeros(op.shape.channels, np.float32)
    return weights


def _size(op: graph.Op, inputs: list[float]) -> float:
    """Root mean square of what an op makes of inputs of these, roughly."""
    match op:
        case graph.Conv() | graph.Linear() | graph.Normalize():
            return 1.0
        case graph.Activation():
            return 0.5 if op.function in ("sigmoid", "hard_sigmoid") else 0.7 * inputs[0]
        case graph.Scale():
            return 0.5 * inputs[0]
        case graph.Add():
            return float(sum(size**2 for size in inputs) ** 0.5)
    return max(inputs, default=1.0)


def weight_shape(op: graph.Conv | graph.Linear) -> tuple[int, ...]:
    """Shape of the op's weight: (cout, cin / groups, k, k) or (cout, cin)."""
    if isinstance(op, graph.Linear):
        return (op.shape.channels, op.cin)
    return (op.shape.channels, op.cin // op.groups, op.kernel, op.kernel)


def _affine(name: str, norm: graph.Norm, state: Mapping[str, Array]) -> tuple[Array, Array]:
    """A batch normalisation in use as a factor and an offset per channel."""
    deviation = np.sqrt(state[f"{name}.running_var"].astype(np.float64) + norm.epsilon)
    scale = state[f"{name}.weight"] / deviation
    offset = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale
    return scale.astype(np.float32), offset.astype(np.float32)


def _fold_convolution(op: graph.Conv, state: Mapping[str, Array], weights: dict[str, Array]) -> None:
    weight = state[f"{op.name}.weight"]
    if op.norm:
        scale, offset = _affine(f"{op.name}.norm", op.norm, state)
        weights[f"{op.name}.weight"] = weight * scale[:, None, None, None]
        weights[f"{op.name}.bias"] = offset
        return
    weights[f"{op.name}.weight"] = weight
    if op.bias:
        weights[f"{op.name}.bias"] = state[f"{op.name}.bias"]


# Numbers of the fields in ONNX's schema, onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
_GRAPH_IN_MODEL, _INITIALIZER_IN_GRAPH, _RAW_DATA_IN_TENSOR = 7, 5, 9


def _begin(field_number: int, length: int) -> bytes:
    """What precedes `length` bytes of a field in a serialised message: its number, its kind (length-delimited), the length."""
    encoded = bytearray([field_number << 3 | 2])
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


@dataclass
class _Emitter:
    """Appends the nodes of one op after the other; `values` maps an op's position to the name of its result.

    The weights stay out of the message: `tensors` holds the serialised pieces that follow it, the weights' own memory among them.
    Copying megabytes from message to message would take most of the time.
    """

    weights: Mapping[str, Array]
    made: onnx.GraphProto
    tensors: list[bytes | memoryview] = field(default_factory=list)
    values: dict[int, str] = field(default_factory=dict)
    scalars: set[str] = field(default_factory=set)

    def emit(self, index: int, op: graph.Op) -> None:
        """Append the nodes of `op`."""
        inputs = [self.values[source] for source in op.inputs]
        self.values[index] = self._result(op, inputs)

    def _result(self, op: graph.Op, inputs: list[str]) -> str:
        """Name of the op's result, after appending what computes it."""
        match op:
            case graph.Input():
                return INPUT
            case graph.Dropout() | graph.LayerScale():
                return inputs[0]  # nothing when deployed; folded into the convolution before
            case graph.Conv():
                return self._convolution(op, inputs[0])
            case graph.Linear():
                return self._node("Gemm", op.name, [inputs[0], *self._tensors(op.name)], transB=1)
            case graph.Normalize():
                return self._normalization(op, inputs[0])
            case graph.Activation():
                return self._activation(op, inputs[0])
            case graph.Add():
                return self._node("Add", op.name, inputs)
            case graph.Scale():
                return self._node("Mul", op.name, inputs)
            case graph.Concat():
                return self._node("Concat", op.name, inputs, axis=1)
            case graph.Pool():
                return self._pool(op, inputs[0])
            case graph.GlobalPool():
                return self._node("GlobalAveragePool", op.name, inputs)
            case graph.Flatten():
                return self._node("Flatten", op.name, inputs, axis=1)
            case graph.Attention():
                return self._attention(op, *inputs)
        raise TypeError(f"no ONNX node for op {op!r}")

    def _convolution(self, op: graph.Conv, source: str) -> str:
        return self._node(
            "Conv",
            op.name,
            [source, *self._tensors(op.name)],
            kernel_shape=[op.kernel] * 2,
            strides=[op.stride] * 2,
            pads=[op.padding] * 4,
            group=op.groups,
        )

    def _normalization(self, op: graph.Normalize, source: str) -> str:
        """As one batch normalisation of mean 0 and variance 1, which the runtime knows how to fuse."""
        zeros = self._tensor(f"{op.name}.mean", np.zeros(op.shape.channels, np.float32))
        ones = self._tensor(f"{op.name}.variance", np.ones(op.shape.channels, np.float32))
        return self._node("BatchNormalization", op.name, [source, *self._tensors(op.name), zeros, ones], epsilon=0.0)

    def _activation(self, op: graph.Activation, source: str) -> str:
        match op.function:
            case "relu":
                return self._node("Relu", op.name, [source])
            case "relu6":
                return self._node("Clip", op.name, [source, self._scalar("zero", 0.0), self._scalar("six", 6.0)])
            case "hard_swish":
                return self._node("HardSwish", op.name, [source])
            case "hard_sigmoid":
                return self._node("HardSigmoid", op.name, [source], alpha=1 / 6, beta=0.5)
            case "sigmoid":
                return self._node("Sigmoid", op.name, [source])
            case "silu":
                gate = self._node("Sigmoid", f"{op.name}.gate", [source])
                return self._node("Mul", op.name, [source, gate])
            case "gelu":
                return self._node("Gelu", op.name, [source])

    def _pool(self, op: graph.Pool, source: str) -> str:
        average = {"count_include_pad": 1} if op.function == "avg" else {}
        return self._node(
            "MaxPool" if op.function == "max" else "AveragePool",
            op.name,
            [source],
            kernel_shape=[op.kernel] * 2,
            strides=[op.stride] * 2,
            pads=[op.padding] * 4,
            ceil_mode=int(op.ceil),
            **average,
        )

    def _attention(self, op: graph.Attention, query: str, key: str, value: str) -> str:
        """Softmax(QᵀK / √d) applied to V, positions last: both transposes are taken into the products by the runtime."""
        name, tokens = op.name, op.shape.height * op.shape.width
        q = self._reshape(f"{name}.q", query, [0, op.heads, op.key_dim, tokens])
        k = self._reshape(f"{name}.k", key, [0, op.kv_heads, op.key_dim, op.kv_tokens])
        v = self._reshape(f"{name}.v", value, [0, op.kv_heads, op.value_dim, op.kv_tokens])
        rows = self._node("Transpose", f"{name}.rows", [q], perm=[0, 1, 3, 2])
        scores = self._node("MatMul", f"{name}.scores", [rows, k])
        scale = self._scalar(f"scale{op.key_dim}", op.key_dim**-0.5)
        scaled = self._node("Mul", f"{name}.scaled", [scores, scale])
        shares = self._node("Softmax", f"{name}.softmax", [scaled], axis=-1)
        columns = self._node("Transpose", f"{name}.columns", [shares], perm=[0, 1, 3, 2])
        mixed = self._node("MatMul", f"{name}.mixed", [v, columns])
        return self._reshape(name, mixed, [0, *op.shape])

    def _reshape(self, name: str, source: str, shape: list[int]) -> str:
        self.made.initializer.append(helper.make_tensor(f"{name}.shape", TensorProto.INT64, [len(shape)], shape))
        return self._node("Reshape", name, [source, f"{name}.shape"])

    def _node(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.made.node.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _tensors(self, name: str) -> list[str]:
        """Names of the op's deployed weight and, where there is one, bias; added to the model."""
        keys = [f"{name}.weight", f"{name}.bias"]
        return [self._tensor(key, self.weights[key]) for key in keys if key in self.weights]

    def _scalar(self, name: str, value: float) -> str:
        if name not in self.scalars:
            self.scalars.add(name)
            self._tensor(name, np.asarray(value, np.float32))
        return name

    def _tensor(self, name: str, value: Array) -> str:
        about = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=value.shape).SerializeToString()
        data: bytes | memoryview = (
            memoryview(np.ascontiguousarray(value, dtype="<f4").data).cast("B") if value.size else b""
        )
        start = _begin(_RAW_DATA_IN_TENSOR, len(data))
        self.tensors += [_begin(_INITIALIZER_IN_GRAPH, len(about) + len(start) + len(data)), about, start, data]
        return name

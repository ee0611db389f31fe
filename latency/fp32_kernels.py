"""The fused kernels that ONNX Runtime's CPU provider executes for a float32 network, by rule, without a session.

At graph level ``all`` the runtime rewrites a graph in three ways that decide its speed, and they are followed here:

* A convolution takes in the activation after it (ReLU, ReLU6, hard-sigmoid, sigmoid; hard-swish only in the blocked layout)
  and the residual sum.
* Maps are kept in a layout of channel blocks (NCHWc) wherever the ops allow it, and reordered in between where they do not:
  a convolution needs input channels that are a multiple of 4 (or fewer than a block: then it reads plain maps), a pool or
  a concatenation channels that fill whole blocks; a squeeze-excite's product works on plain maps.
* Batch normalisations vanish in the convolution before them or become a depthwise one; a transposed product with its scale
  becomes one product.

The rules are those of ``nchwc_transformer.cc``, ``conv_activation_fusion.cc`` and ``conv_add_act_fusion.cc`` in ONNX Runtime
1.31; `latency.kernel_check` compares them with what a device's runtime really does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from latency.kernel import Entry, Kernel, Layout, Plan
from searchspace import graph as ir
from searchspace.graph import Op, Shape

CHANNEL_ALIGNMENT = 4  # input channels of a blocked convolution are a multiple of this
ACTIVATIONS: dict[ir.ActivationKind, str] = {
    "relu": "Relu",
    "relu6": "Clip",
    "hard_swish": "HardSwish",
    "hard_sigmoid": "HardSigmoid",
    "sigmoid": "Sigmoid",
    "silu": "QuickGelu",
    "gelu": "Gelu",
}
FUSED = {"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid"}


def plan(ops: Sequence[Op], entry: Entry, *, nchwc_block: int) -> Plan:
    """The kernels of all ops but the first, which is the input and is found as `entry`."""
    return _Planner(ops, entry, nchwc_block).plan()


@dataclass(slots=True)
class _Value:
    """An op's result while planning."""

    shape: Shape
    layout: Layout
    uses: int
    kernel: int = -1  # position of the convolution that makes it and could still take in what follows, or -1
    absorbs_norm: bool = False
    reordered: bool = False  # it is also there in the other layout


class _Planner:
    def __init__(self, ops: Sequence[Op], entry: Entry, block: int) -> None:
        self.block = block
        self.kernels: list[Kernel] = []
        self.uses = [0] * len(ops)
        for op in ops:
            for source in op.inputs:
                self.uses[source] += 1
        self.ops = ops
        self.values = [_Value(ops[0].shape, entry.layout, self.uses[0], absorbs_norm=entry.absorbs_norm)]

    def plan(self) -> Plan:
        """The kernels of all ops but the first, which is the input."""
        for op in self.ops[1:]:
            self.values.append(self._value(op, [self.values[source] for source in op.inputs]))
        last = self.values[-1]
        return Plan(tuple(self.kernels), Entry(last.layout, last.absorbs_norm))

    def _value(self, op: Op, inputs: list[_Value]) -> _Value:
        match op:
            case ir.Conv():
                return self._convolution(op, inputs[0])
            case ir.Activation():
                return self._activation(op, inputs[0])
            case ir.Add():
                return self._sum(op, inputs)
            case ir.Scale():
                blocked = _all_blocked(inputs) and inputs[0].shape == inputs[1].shape
                return self._plain("Mul", op, inputs, layout="nchwc" if blocked else "nchw")
            case ir.Concat():
                blocked = _all_blocked(inputs) and all(value.shape.channels % self.block == 0 for value in inputs)
                return self._plain("Concat", op, inputs, layout="nchwc" if blocked else "nchw")
            case ir.Pool():
                return self._pool(op, inputs[0])
            case ir.GlobalPool():
                blocked = _all_blocked(inputs) and op.shape.channels % self.block == 0
                return self._plain("GlobalAveragePool", op, inputs, layout="nchwc" if blocked else "nchw")
            case ir.Normalize():
                return self._normalization(op, inputs[0])
            case ir.Dropout() | ir.LayerScale():
                inputs[0].uses += self._uses() - 1
                return inputs[0]
            case ir.Flatten():
                return self._plain("Flatten", op, inputs)
            case ir.Linear():
                return self._plain("Gemm", op, inputs)
            case ir.Attention():
                return self._attention(op, inputs)
        raise TypeError(f"no kernel is known for op {op!r}")

    def _convolution(self, op: ir.Conv, source: _Value) -> _Value:
        direct = self.block > 1 and op.groups == 1 and op.cin < self.block
        blocked = self.block > 1 and (direct or op.cin % CHANNEL_ALIGNMENT == 0)
        self._need(source, "nchwc" if blocked and not direct else "nchw")
        layout: Layout = "nchwc" if blocked else "nchw"
        bias = op.bias or op.norm is not None
        window = (op.kernel, op.stride, op.padding)
        position = self._emit(Kernel("Conv", layout, source.shape, op.shape, *window, op.groups, direct, bias))
        return _Value(op.shape, layout, self._uses(), position, absorbs_norm=True)

    def _activation(self, op: ir.Activation, source: _Value) -> _Value:
        name = ACTIVATIONS[op.function]
        fusable = name in FUSED and source.kernel >= 0 and source.uses == 1
        if fusable and (name != "HardSwish" or source.layout == "nchwc"):
            self.kernels[source.kernel] = self.kernels[source.kernel]._replace(activation=name)
            return _Value(op.shape, source.layout, self._uses())
        if name == "HardSwish":  # the runtime has no kernel for it alone
            self._emit(Kernel("HardSigmoid", source.layout, source.shape, op.shape))
            name = "Mul"
        return self._plain(name, op, [source], layout=source.layout)

    def _sum(self, op: ir.Add, inputs: list[_Value]) -> _Value:
        layout: Layout = "nchwc" if _all_blocked(inputs) else "nchw"
        for value in inputs:
            if value.kernel >= 0 and value.uses == 1 and value.layout == layout:
                kernel = self.kernels[value.kernel]
                if kernel.bias or layout == "nchwc":
                    del self.kernels[value.kernel]  # it runs once both terms are there
                    for other in self.values:
                        other.kernel -= other.kernel > value.kernel
                    for other in inputs:
                        self._need(other, layout)
                    self._emit(kernel._replace(add=True))
                    return _Value(op.shape, layout, self._uses())
        return self._plain("Add", op, inputs, layout=layout)

    def _pool(self, op: ir.Pool, source: _Value) -> _Value:
        blocked = self.block > 1 and op.shape.channels % self.block == 0
        layout: Layout = "nchwc" if blocked else "nchw"
        self._need(source, layout)
        name = "MaxPool" if op.function == "max" else "AveragePool"
        self._emit(Kernel(name, layout, source.shape, op.shape, op.kernel, op.stride, op.padding))
        return _Value(op.shape, layout, self._uses())

    def _normalization(self, op: ir.Normalize, source: _Value) -> _Value:
        if source.absorbs_norm and source.uses == 1:
            return _Value(op.shape, source.layout, self._uses(), source.kernel)
        if source.layout == "nchw":
            return self._plain("BatchNormalization", op, [source])
        groups = op.shape.channels
        position = self._emit(Kernel("Conv", "nchwc", source.shape, op.shape, groups=groups, bias=True))
        return _Value(op.shape, "nchwc", self._uses(), position)

    def _attention(self, op: ir.Attention, inputs: list[_Value]) -> _Value:
        for value in inputs:
            self._need(value, "nchw")
            self._emit(Kernel("Reshape", "nchw", value.shape, value.shape))
        tokens = op.shape.height * op.shape.width
        rows, scores = Shape(op.heads, tokens, op.key_dim), Shape(op.heads, tokens, op.kv_tokens)
        self._emit(Kernel("FusedMatMul", "nchw", rows, scores))
        self._emit(Kernel("Softmax", "nchw", scores, scores))
        shares, mixed = Shape(op.heads, op.value_dim, op.kv_tokens), Shape(op.heads, op.value_dim, tokens)
        self._emit(Kernel("FusedMatMul", "nchw", shares, mixed))
        self._emit(Kernel("Reshape", "nchw", op.shape, op.shape))
        return _Value(op.shape, "nchw", self._uses())

    def _plain(self, name: str, op: Op, inputs: list[_Value], *, layout: Layout = "nchw") -> _Value:
        for value in inputs:
            self._need(value, layout)
        self._emit(Kernel(name, layout, inputs[0].shape, op.shape))
        return _Value(op.shape, layout, self._uses())

    def _need(self, value: _Value, layout: Layout) -> None:
        """Reorder a value unless it is there in that layout; once is enough for all who read it."""
        if value.layout != layout and not value.reordered:
            value.reordered = True
            name = "ReorderInput" if layout == "nchwc" else "ReorderOutput"
            self._emit(Kernel(name, layout, value.shape, value.shape))

    def _emit(self, kernel: Kernel) -> int:
        self.kernels.append(kernel)
        return len(self.kernels) - 1

    def _uses(self) -> int:
        """How often the op being planned is read."""
        return self.uses[len(self.values)]


def _all_blocked(values: Sequence[_Value]) -> bool:
    return all(value.layout == "nchwc" for value in values)

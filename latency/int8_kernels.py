"""The kernels that ONNX Runtime's CPU provider executes for an 8-bit network (`latency.qdq`), by rule, without a session.

At graph level ``all`` the runtime turns a quantise-dequantise pair around an op into an integer kernel, and these rules follow:

* Convolutions and pools work on maps with the channels last, and so does what lies between them: one transpose where the image
  comes in, one before the classifier, some around what has no integer kernel in this layout (attention, normalisations).
  Where exactly the runtime puts the last ones it decides by an estimate of costs; `latency.kernel_check` does not compare them.
* ReLU and ReLU6 vanish. Sigmoid is a look-up table. Hard-swish, hard-sigmoid and GELU are computed in float32 between a
  dequantise and a quantise.
* Nothing is fused into a convolution: residual sums, products and concatenations are integer kernels of their own.
* A convolution has one of two loops. The fast one follows pointers to the windows and puts out 8-bit numbers itself; it takes the
  widths in `LOOPS` only. The other copies windows where they overlap, forms a matrix product of 32-bit numbers (depthwise: sums
  them up) and requantises them in a second pass. The rules are those of ``MlasConvSymPackWSize`` in ``convsym.cpp`` and
  ``TryConvSymPrepack`` in ``qlinearconv.cc`` of ONNX Runtime 1.31.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from latency.kernel import Entry, Kernel, Layout, Plan
from searchspace import graph as ir
from searchspace.graph import Op, Shape

FLOAT_ACTIVATIONS: dict[ir.ActivationKind, tuple[str, ...]] = {
    "relu": ("Relu",),
    "relu6": ("Clip",),
    "hard_swish": ("HardSigmoid", "Mul"),
    "hard_sigmoid": ("HardSigmoid",),
    "gelu": ("Gelu",),
}


class Loop(NamedTuple):
    """Widths that an instruction set's fast loops for integer convolutions take.

    Attributes:
        cin: input channels must be a multiple of this,
        cout: output channels of this,
        least_cout: and not fewer,
        pointwise: whether it takes 1×1 windows.
        least_cin: input channels must not be fewer.
        depthwise: channels of a depthwise convolution must be a multiple of this.
    """

    cin: int
    cout: int
    least_cout: int
    depthwise: int
    pointwise: bool = True
    least_cin: int = 0


LOOPS = {  # by channels in a block of the runtime's float32 layout, which tells AVX2, AVX-512 and arm64 apart
    8: Loop(cin=4, cout=8, least_cout=16, depthwise=16),
    16: Loop(cin=4, cout=4, least_cout=16, depthwise=16),
    1: Loop(cin=4, cout=16, least_cout=16, depthwise=8, pointwise=False, least_cin=64),
}


def plan(ops: Sequence[Op], entry: Entry, *, nchwc_block: int) -> Plan:
    """The kernels of all ops but the first, which is the input and is found as `entry`."""
    return _Planner(ops, entry, LOOPS.get(nchwc_block, LOOPS[8])).plan()


@dataclass(slots=True)
class _Value:
    """An op's result while planning; only the image comes as float32, everything else is quantised."""

    shape: Shape
    layout: Layout
    uses: int
    transposed: bool = False  # it is also there in the other layout


class _Planner:
    def __init__(self, ops: Sequence[Op], entry: Entry, loop: Loop) -> None:
        self.ops = ops
        self.loop = loop
        self.kernels: list[Kernel] = []
        self.uses = [0] * len(ops)
        for op in ops:
            for source in op.inputs:
                self.uses[source] += 1
        self.values = [_Value(ops[0].shape, entry.layout, self.uses[0])]
        if entry.layout == "nchw":
            self._emit("QuantizeLinear", "nchw", ops[0].shape)

    def plan(self) -> Plan:
        for op in self.ops[1:]:
            self.values.append(self._value(op, [self.values[source] for source in op.inputs]))
        return Plan(tuple(self.kernels), Entry(self.values[-1].layout))

    def _value(self, op: Op, inputs: list[_Value]) -> _Value:
        match op:
            case ir.Conv():
                window = (op.kernel, op.stride, op.padding)
                kernel = Kernel("QLinearConv", "nhwc", inputs[0].shape, op.shape, *window, op.groups)
                return self._channels_last(kernel._replace(requantized=self._is_fast(op)), inputs)
            case ir.Pool():
                name = "NhwcMaxPool" if op.function == "max" else "QLinearAveragePool"
                kernel = Kernel(name, "nhwc", inputs[0].shape, op.shape, op.kernel, op.stride, op.padding)
                return self._channels_last(kernel, inputs)
            case ir.Add():
                return self._channels_last(Kernel("QLinearAdd", "nhwc", inputs[0].shape, op.shape), inputs)
            case ir.Scale():
                return self._channels_last(Kernel("QLinearMul", "nhwc", inputs[0].shape, op.shape), inputs)
            case ir.Concat():
                return self._channels_last(Kernel("QLinearConcat", "nhwc", inputs[0].shape, op.shape), inputs)
            case ir.GlobalPool():
                kernel = Kernel("QLinearGlobalAveragePool", "nhwc", inputs[0].shape, op.shape)
                return self._channels_last(kernel, inputs)
            case ir.Activation():
                return self._activation(op, inputs[0])
            case ir.Normalize():
                return self._floating(("BatchNormalization",), op, inputs[0], layout="nchw")
            case ir.Dropout() | ir.LayerScale():
                inputs[0].uses += self._uses() - 1
                return inputs[0]
            case ir.Flatten():
                return self._flatten(op, inputs[0])
            case ir.Linear():
                self._need(inputs[0], "nchw")
                self.kernels.append(Kernel("QGemm", "nchw", inputs[0].shape, op.shape))
                return _Value(op.shape, "nchw", self._uses())
            case ir.Attention():
                return self._attention(op, inputs)
        raise TypeError(f"no kernel is known for op {op!r}")

    def _is_fast(self, op: ir.Conv) -> bool:
        """Whether the fast loop takes a convolution."""
        loop, cin, cout = self.loop, op.cin, op.shape.channels
        if op.groups > 1:
            return op.groups == cin == cout and cout % loop.depthwise == 0
        if op.kernel == 1 and not loop.pointwise:
            return False
        aligned = cin % loop.cin == 0 and cout % loop.cout == 0
        return aligned and cin >= loop.least_cin and cout >= loop.least_cout

    def _channels_last(self, kernel: Kernel, inputs: Sequence[_Value]) -> _Value:
        for value in inputs:
            self._need(value, "nhwc")
        self.kernels.append(kernel)
        return _Value(kernel.shape, "nhwc", self._uses())

    def _activation(self, op: ir.Activation, source: _Value) -> _Value:
        if op.function in ("relu", "relu6") and source.uses == 1:
            return _Value(op.shape, source.layout, self._uses())
        if op.function in ("sigmoid", "silu"):
            self._emit("QLinearSigmoid", source.layout, op.shape)
            if op.function == "silu":
                self._emit("QLinearMul", source.layout, op.shape)
            return _Value(op.shape, source.layout, self._uses())
        return self._floating(FLOAT_ACTIVATIONS[op.function], op, source, layout=source.layout)

    def _floating(self, names: Sequence[str], op: Op, source: _Value, *, layout: Layout) -> _Value:
        """An op in float32 between a dequantise and a quantise."""
        self._need(source, layout)
        for name in ("DequantizeLinear", *names, "QuantizeLinear"):
            self._emit(name, layout, op.shape)
        return _Value(op.shape, layout, self._uses())

    def _flatten(self, op: ir.Flatten, source: _Value) -> _Value:
        self._need(source, "nchw")
        if self._uses() == 0:  # the network's output
            self._emit("DequantizeLinear", "nchw", op.shape)
        self._emit("Flatten", "nchw", op.shape)
        return _Value(op.shape, "nchw", self._uses())

    def _attention(self, op: ir.Attention, inputs: Sequence[_Value]) -> _Value:
        """The first product takes integers, what follows is float32."""
        for value in inputs:
            self._need(value, "nchw")
            self._emit("Reshape", "nchw", value.shape)
        queries, _, values = inputs
        tokens = op.shape.height * op.shape.width
        rows, scores = Shape(op.heads, tokens, op.key_dim), Shape(op.heads, tokens, op.kv_tokens)
        self._emit("Transpose", "nchw", queries.shape)
        self.kernels.append(Kernel("MatMulIntegerToFloat", "nchw", rows, scores))
        self._emit("Mul", "nchw", scores)
        self._emit("Softmax", "nchw", scores)
        self._emit("DequantizeLinear", "nchw", values.shape)
        shares, mixed = Shape(op.heads, op.value_dim, op.kv_tokens), Shape(op.heads, op.value_dim, tokens)
        self.kernels.append(Kernel("FusedMatMul", "nchw", shares, mixed))
        self._emit("QuantizeLinear", "nchw", op.shape)
        self._emit("Reshape", "nchw", op.shape)
        return _Value(op.shape, "nchw", self._uses())

    def _need(self, value: _Value, layout: Layout) -> None:
        """Transpose a value unless it is there in that layout; once is enough for all who read it."""
        if value.layout != layout and not value.transposed:
            value.transposed = True
            self._emit("Transpose", layout, value.shape)

    def _emit(self, name: str, layout: Layout, shape: Shape) -> None:
        self.kernels.append(Kernel(name, layout, shape, shape))

    def _uses(self) -> int:
        """How often the op being planned is read."""
        return self.uses[len(self.values)]

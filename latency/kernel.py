"""A kernel that ONNX Runtime executes for a network, as the latency model sees it, and what a block leaves to the next."""

from typing import Literal, NamedTuple

from searchspace.graph import Shape

Layout = Literal["nchw", "nchwc", "nhwc"]
PRODUCTS = ("Gemm", "QGemm")


class Kernel(NamedTuple):
    """One node that the runtime executes.

    Attributes:
        op: ONNX Runtime's node type (a plain convolution with something fused into it is still ``Conv`` here).
        layout: of the map it puts out; for reorders, of what they make.
        source: shape of its (first) input; of a matrix product (heads, rows, inner).
        shape: shape of its output; of a matrix product (heads, rows, columns).
        kernel: side of the window in pixels.
        stride: in pixels.
        padding: on each side, in pixels.
        groups: 1, or the number of channels of a depthwise convolution.
        direct: a blocked convolution that reads a plain map (an image, or a map of fewer channels than a block).
        bias: a convolution has a bias.
        activation: node type of the activation fused into it, or "".
        add: a residual sum is fused into it.
        requantized: an integer convolution whose loop puts out 8-bit numbers itself (see `latency.int8_kernels`).
    """

    op: str
    layout: Layout
    source: Shape
    shape: Shape
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    direct: bool = False
    bias: bool = False
    activation: str = ""
    add: bool = False
    requantized: bool = False

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution, of floats or of integers."""
        return self.op in ("Conv", "QLinearConv")

    @property
    def macs(self) -> int:
        """Multiply-accumulates, without what padding to blocks adds."""
        if self.convolves:
            return self.shape.values * (self.source.channels // self.groups) * self.kernel**2
        if self.op in PRODUCTS:
            return self.shape.channels * self.source.channels
        if self.op in ("FusedMatMul", "MatMulIntegerToFloat"):
            return self.shape.values * self.source.width
        return 0

    @property
    def weights(self) -> int:
        """Numbers it reads besides maps."""
        if self.convolves:
            return self.shape.channels * (self.source.channels // self.groups) * self.kernel**2
        return self.shape.channels * self.source.channels if self.op in PRODUCTS else 0


class Entry(NamedTuple):
    """What a block finds at its input: its layout, and whether a batch normalisation there would vanish."""

    layout: Layout = "nchw"
    absorbs_norm: bool = False


class Plan(NamedTuple):
    """The kernels of some ops, and what the next block finds at its input."""

    kernels: tuple[Kernel, ...]
    exit: Entry

"""What makes a kernel slow: per kernel a few non-negative quantities that its time is a weighted sum of.

Every kind of kernel has its own weights (see `latency.model`), so quantities need no common unit. A quantity is named
``kind:term``; the terms of a convolution are

=============  ==================================================================================================
``kernel``     1: what any kernel costs, however small
``macs``       multiply-accumulates, channels padded to whole blocks, outside the image left out
``stall``      those that a core could have done while tiles with too few sums waited for their own results
``tiles``      tiles of outputs times passes over them: each is loaded, added to and stored
``sums``       numbers that passes after the first load and store again
``calls``      inner loops started
``in, out``    numbers read and written as maps
``reread``     numbers of the input read again for each group of output blocks, because the first-level cache has not kept them
``weights``    numbers read as weights
``refetched``  weights read again for each row, because a group of output blocks has more than the first-level cache
``spilled``    numbers read and written beyond the second-level cache
``add``        numbers of the residual that is added
``rows``       as ``stall``, for the output channels of a plain convolution
``broadcasts`` numbers of the input spread over a vector in an integer convolution
``pack``       numbers of the input arranged for the matrix product of an integer convolution
``taps``       places of windows, each with a pointer to find; ``pointers`` those followed by the inner loops
``half, tail`` left-over channels of integer loops: eight together, one by one
``unfold``     numbers copied to turn a plain convolution into a matrix product (``gather``: one by one, for a stride)
``lines``      rows of numbers copied so; ``singles`` those numbers of them that are not copied four together
=============  ==================================================================================================

and ``activation NAME:out`` for fused activations other than ReLU. The tiles are those of ONNX Runtime's inner loops: some
outputs of a row times `GROUP_BLOCKS` blocks of output channels; a tile with fewer than `IN_FLIGHT` sums cannot keep a
core's two multipliers busy, whose results take four cycles. Integer convolutions have loops of their own:
see `latency.integer_features`.

The channels in a block tell instruction sets apart (`LOOPS`). Where there are no blocks (arm64; every x86-64 has them) all
float32 convolutions are plain ones, and a depthwise one of 3×3 without a stride is not unfolded but computed directly: its
only arithmetic is ``taps``.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from latency.integer_features import integer_convolution, up
from latency.kernel import Kernel

GROUP_BLOCKS = 4  # blocks of output channels that the runtime's inner loops compute together
IN_FLIGHT = 8  # sums that must be on their way for full speed
PASS_CHANNELS = 128  # input channels that a pointwise convolution sums up in one pass
COPIED_TOGETHER = 4  # numbers, where windows are copied to form a matrix product
LEVEL1_VALUES = 32 * 1024 // 4
LEVEL2_VALUES = 1024 * 1024 // 4
CACHES = {"0.5 MiB": 1 << 19, "2 MiB": 1 << 21, "48 MiB": 48 << 20}
ANY_LAYOUT = (
    "ReorderInput",
    "ReorderOutput",
    "Transpose",
    "QuantizeLinear",
    "DequantizeLinear",
)  # cost the same in each
FREE = ("", "Relu")  # activations that the inner loop does on its way; others are one more pass over the output


class Loops(NamedTuple):
    """What an instruction set's loops over floats compute together.

    Attributes:
        outputs: of a row, in the layout of blocks,
        half_outputs: and of what is left of it; fewer are a tile by themselves.
        rows: of a tile of a matrix product,
        half_rows: and of what is left over; fewer are a tile by themselves.
        columns: of that tile.
        in_flight: rows of it that must be on their way for full speed.
    """

    outputs: int
    half_outputs: int
    rows: int
    half_rows: int
    columns: int
    in_flight: int


LOOPS = {  # by channels in a block; from MLAS in ONNX Runtime 1.31, where `Sconv…` and `Fgemm…` name the loops
    8: Loops(outputs=3, half_outputs=3, rows=6, half_rows=6, columns=8, in_flight=4),  # FMA3
    16: Loops(outputs=6, half_outputs=3, rows=12, half_rows=6, columns=16, in_flight=4),  # AVX-512
    1: Loops(outputs=6, half_outputs=3, rows=4, half_rows=2, columns=16, in_flight=2),  # arm64
}


def kind(kernel: Kernel) -> str:
    """Which kernels share weights."""
    if not kernel.convolves:
        return kernel.op if kernel.op in ANY_LAYOUT else f"{kernel.layout} {kernel.op}"
    if kernel.op == "QLinearConv" and not kernel.requantized:
        return "integer depthwise loop" if kernel.groups > 1 else "integer product"
    if kernel.groups > 1:
        return f"{kernel.layout} depthwise"
    if kernel.direct:
        return "direct convolution"
    return f"{kernel.layout} {'pointwise' if kernel.kernel == 1 else 'convolution'}"


def measured_as(kernel: Kernel) -> tuple[str, ...]:
    """What must have been measured before this kernel's time can be told: its kind with its window, and its activation."""
    name = kind(kernel)
    if kernel.kernel > 1 and kernel.convolves:
        name = f"{name} {kernel.kernel}×{kernel.kernel}"
    if kernel.activation in FREE:
        return (name,)
    return (name, f"activation {kernel.activation}")


def quantities(kernels: Iterable[Kernel], *, nchwc_block: int) -> dict[str, float]:
    """The quantities of some kernels together.

    Args:
        kernels: from `latency.kernel`.
        nchwc_block: channels in a block on the device.
    """
    total: dict[str, float] = {}
    for kernel in kernels:
        prefix = kind(kernel)
        terms = _convolution(kernel, nchwc_block) if kernel.convolves else _other(kernel)
        for term, value in terms:
            if value:
                key = f"{prefix}:{term}"
                total[key] = total.get(key, 0.0) + value
        if kernel.activation not in FREE:
            key = f"activation {kernel.activation}:out"
            total[key] = total.get(key, 0.0) + kernel.shape.values
    return total


def network_quantities(kernels: Iterable[Kernel], *, nchwc_block: int) -> dict[str, float]:
    """The quantities of a whole network: those of its kernels, and of all its weights together."""
    listed = tuple(kernels)
    return {**quantities(listed, nchwc_block=nchwc_block), **memory_quantities(weight_bytes(listed))}


def weight_bytes(kernels: Iterable[Kernel]) -> int:
    """Bytes that the weights of some kernels take."""
    return sum(kernel.weights * (1 if kernel.op.startswith("Q") else 4) for kernel in kernels)


def memory_quantities(weights_bytes: float) -> dict[str, float]:
    """What a network pays for so many bytes of weights together."""
    return {f"memory:beyond {name}": weights_bytes - size for name, size in CACHES.items() if weights_bytes > size}


def _convolution(kernel: Kernel, block: int) -> Iterator[tuple[str, float]]:
    loops = LOOPS.get(block, LOOPS[8])
    if kernel.op == "QLinearConv":
        yield from integer_convolution(kernel, block)
    elif block == 1 and _computed_directly(kernel):
        yield from _direct(kernel)
    elif kernel.layout == "nchw":
        yield from _plain_convolution(kernel, loops)
    else:
        yield "kernel", 1
        if kernel.groups > 1:
            yield from _depthwise(kernel, block, loops)
        elif kernel.kernel == 1 and not kernel.direct:
            yield from _pointwise(kernel, block, loops)
        else:
            yield from _window(kernel, block, loops)
        if kernel.add:
            yield "add", kernel.shape.values


def _pointwise(kernel: Kernel, block: int, loops: Loops) -> Iterator[tuple[str, float]]:
    """Without a stride all outputs are one row; input channels are summed up in passes."""
    _, rows, columns = kernel.shape
    flat = kernel.stride == 1
    lines, run = (1, rows * columns) if flat else (rows, columns)
    depth, out_blocks = up(kernel.source.channels, block), -(-kernel.shape.channels // block)
    passes = -(-depth // PASS_CHANNELS)
    groups = -(-out_blocks // GROUP_BLOCKS)
    tiles, stall = _tiles(run, out_blocks, loops)
    yield "macs", rows * columns * out_blocks * block * depth
    yield "stall", lines * stall * depth * block
    yield "tiles", lines * tiles * passes
    yield "sums", rows * columns * out_blocks * block * (passes - 1)
    yield "calls", lines * groups * passes
    yield from _traffic(kernel, rows * columns * kernel.source.channels, out_blocks * block * depth, groups)


def _window(kernel: Kernel, block: int, loops: Loops) -> Iterator[tuple[str, float]]:
    """A pass over an output row for each block of input channels, or for each channel of a plain map."""
    _, rows, columns = kernel.shape
    depth = kernel.source.channels if kernel.direct else up(kernel.source.channels, block)
    passes = depth if kernel.direct else depth // block
    out_blocks = -(-kernel.shape.channels // block)
    groups = -(-out_blocks // GROUP_BLOCKS)
    across, down = _taps(kernel, 2), _taps(kernel, 1)
    inner = _inner(kernel, 2)
    tiles, stall = _tiles(inner, out_blocks, loops)
    edge_tiles, edge_stall = _tiles(1, out_blocks, loops)
    edges = columns - inner  # outputs whose window reaches into the padding are computed one by one
    weights = out_blocks * block * depth * kernel.kernel**2
    yield "macs", across * down * out_blocks * block * depth
    yield "stall", (stall + edges * edge_stall) * kernel.kernel * down * depth * block
    yield "tiles", (tiles + edges * edge_tiles) * rows * passes
    yield "sums", rows * columns * out_blocks * block * (passes - 1)
    yield "calls", rows * groups * passes
    yield from _traffic(kernel, kernel.source.values, weights, groups)
    if weights / out_blocks * min(GROUP_BLOCKS, out_blocks) > LEVEL1_VALUES:
        yield "refetched", weights * rows


def _depthwise(kernel: Kernel, block: int, loops: Loops) -> Iterator[tuple[str, float]]:
    """A row of one block of channels at a time."""
    _, rows, columns = kernel.shape
    blocks = -(-kernel.shape.channels // block)
    across, down = _taps(kernel, 2), _taps(kernel, 1)
    inner = _inner(kernel, 2)
    tiles, stall = _tiles(inner, 1, loops)
    edge_tiles, edge_stall = _tiles(1, 1, loops)
    edges = columns - inner
    yield "macs", across * down * blocks * block
    yield "stall", blocks * (stall + edges * edge_stall) * kernel.kernel * down * block
    yield "tiles", blocks * (tiles + edges * edge_tiles) * rows
    yield "calls", rows * blocks
    yield from _traffic(kernel, kernel.source.values, blocks * block * kernel.kernel**2, 1)


def _traffic(kernel: Kernel, values_in: int, weights: int, groups: int) -> Iterator[tuple[str, float]]:
    """What moves between memory and core; the input is read once for each of `groups` groups of output blocks."""
    yield "in", values_in
    yield "out", kernel.shape.values
    yield "weights", weights
    if values_in > LEVEL1_VALUES:
        yield "reread", values_in * (groups - 1)
    yield "spilled", max(0, values_in + kernel.shape.values + weights - LEVEL2_VALUES)


def _tiles(run: int, blocks: int, loops: Loops) -> tuple[int, int]:
    """How many tiles cover `run` outputs of a row times `blocks` blocks of channels, and the sums that they lack."""
    full, rest = divmod(run, loops.outputs)
    widths = [(loops.outputs, full)] if full else []
    if rest >= loops.half_outputs:
        widths.append((loops.half_outputs, 1))
        rest -= loops.half_outputs
    if rest:
        widths.append((rest, 1))
    full, rest = divmod(blocks, GROUP_BLOCKS)
    heights = [(GROUP_BLOCKS, full), (rest, 1)] if rest else [(GROUP_BLOCKS, full)]
    count = lacking = 0
    for width, across in widths:
        for height, down in heights:
            count += across * down
            lacking += across * down * max(0, IN_FLIGHT - width * height)
    return count, lacking


def _taps(kernel: Kernel, axis: int) -> int:
    """Sum over the outputs along an axis of a map: places of the window that lie within the input."""
    size, outputs = kernel.source[axis], kernel.shape[axis]
    starts = range(-kernel.padding, outputs * kernel.stride - kernel.padding, kernel.stride)
    return sum(min(size, start + kernel.kernel) - max(0, start) for start in starts)


def _inner(kernel: Kernel, axis: int) -> int:
    """Outputs along an axis whose window lies within the input."""
    size, outputs = kernel.source[axis], kernel.shape[axis]
    first = -(-kernel.padding // kernel.stride)
    last = (size + kernel.padding - kernel.kernel) // kernel.stride
    return max(0, min(last, outputs - 1) - first + 1)


def _computed_directly(kernel: Kernel) -> bool:
    """Whether arm64 has a depthwise loop for it: see ``MlasConvPrepare`` in ONNX Runtime's ``convolve.cpp``."""
    return kernel.groups > 1 and (kernel.kernel, kernel.stride) == (3, 1) and kernel.padding <= 1


def _direct(kernel: Kernel) -> Iterator[tuple[str, float]]:
    """One channel at a time, row by row."""
    yield "kernel", 1
    yield "taps", kernel.macs
    yield "calls", kernel.groups
    yield "in", kernel.source.values
    yield "out", kernel.shape.values
    yield "weights", kernel.weights
    yield "spilled", max(0, kernel.source.values + kernel.shape.values + kernel.weights - LEVEL2_VALUES)
    if kernel.add:
        yield "add", kernel.shape.values


def _plain_convolution(kernel: Kernel, loops: Loops) -> Iterator[tuple[str, float]]:
    """A convolution in the plain layout: one matrix product, or one for each channel."""
    outputs = kernel.shape.height * kernel.shape.width
    columns = up(outputs, loops.columns)
    depth = kernel.weights // kernel.shape.channels
    rest, half = kernel.shape.channels // kernel.groups % loops.rows, loops.half_rows
    parts = (half, rest - half) if rest > half else (rest,)
    lacking = sum(max(0, loops.in_flight - part) for part in parts if part)
    yield "kernel", 1
    yield "macs", kernel.shape.channels * columns * depth
    yield "rows", lacking * columns * depth * kernel.groups
    yield "in", kernel.source.values
    yield "out", kernel.shape.values
    yield "weights", kernel.weights
    yield "spilled", max(0, kernel.source.values + kernel.shape.values + kernel.weights - LEVEL2_VALUES)
    if kernel.groups > 1:
        yield "calls", kernel.groups
    if kernel.kernel > 1 or kernel.stride > 1:
        yield "unfold" if kernel.stride == 1 else "gather", outputs * kernel.source.channels * kernel.kernel**2
        yield "lines", kernel.shape.height * kernel.source.channels * kernel.kernel**2
        if kernel.stride == 1:
            yield "singles", kernel.shape.height * kernel.source.channels * kernel.kernel * _singles(kernel)
    if kernel.add:
        yield "add", kernel.shape.values


def _singles(kernel: Kernel) -> int:
    """Numbers that are not copied four together, or set to zero, while a row of outputs gets one row of its windows."""
    inside = [
        max(0, min(kernel.shape.width, kernel.source.width + shift) - max(0, shift))
        for shift in range(kernel.padding, kernel.padding - kernel.kernel, -1)
    ]
    return sum(kernel.shape.width - run + run % COPIED_TOGETHER for run in inside)


def _other(kernel: Kernel) -> Iterator[tuple[str, float]]:
    yield "kernel", 1
    if kernel.op in ("Reshape", "Flatten"):  # moves nothing
        return
    if kernel.macs:
        yield "macs", kernel.macs
    yield "in", kernel.source.values
    if kernel.op.endswith(("MaxPool", "AveragePool")) and "Global" not in kernel.op:
        yield "window", kernel.shape.values * kernel.kernel**2
    yield "out", kernel.shape.values
    limit = LEVEL2_VALUES * (4 if kernel.layout == "nhwc" else 1)  # integers take a quarter of the room
    yield "spilled", max(0, kernel.source.values + kernel.shape.values + kernel.weights - limit)

"""What makes a kernel slow: per kernel a few non-negative quantities that its time is a weighted sum of.

Every kind of kernel has its own weights (see `latency.model`), so quantities need no common unit. A quantity is named
``kind:term``; the terms of a convolution are

=============  ==================================================================================================
``kernel``     1: what any kernel costs, however small
``macs``       multiply-accumulates, channels padded to whole blocks
``tail1…3``    those of them in a last group of 1, 2 or 3 blocks of output channels (full groups have 4)
``columns``    those that would be added if the outputs of a row came in full groups of `COLUMNS`
``rows``       the same for the output channels of a plain convolution
``border``     those of outputs whose window reaches into the padding
``calls``      inner loops started: rows × groups of output blocks × input blocks
``in, out``    numbers read and written as maps
``weights``    numbers read as weights
``refetched``  weights read again for each row, because a group of output blocks has more than the first-level cache
``spilled``    numbers read and written beyond the second-level cache
``add``        numbers of the residual that is added
``unfold``     numbers copied to turn a plain convolution into a matrix product (``gather``: one by one, for a stride)
=============  ==================================================================================================

and ``activation NAME:out`` for fused activations other than ReLU. Integer convolutions are matrix products of their own tile;
their depthwise kernel works on `INTEGER_CHANNELS` channels together.
"""

from collections.abc import Iterable, Iterator

from latency.kernel import Kernel

GROUP_BLOCKS = 4  # blocks of output channels that the runtime's inner loops compute together
COLUMNS = 6  # outputs of a row that they compute together, at most
PRODUCT_ROWS, PRODUCT_COLUMNS = 12, 16  # tile of a plain matrix product
INTEGER_COLUMNS, INTEGER_DEPTH = 16, 4  # tile of an integer matrix product
INTEGER_CHANNELS = 16
LEVEL1_VALUES = 32 * 1024 // 4
LEVEL2_VALUES = 1024 * 1024 // 4
ANY_LAYOUT = (
    "ReorderInput",
    "ReorderOutput",
    "Transpose",
    "QuantizeLinear",
    "DequantizeLinear",
)  # cost the same in each
FREE = ("", "Relu")  # activations that the inner loop does on its way; others are one more pass over the output


def kind(kernel: Kernel) -> str:
    """Which kernels share weights."""
    if not kernel.convolves:
        return kernel.op if kernel.op in ANY_LAYOUT else f"{kernel.layout} {kernel.op}"
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


def _convolution(kernel: Kernel, block: int) -> Iterator[tuple[str, float]]:
    if kernel.op == "QLinearConv":
        yield from _integer_convolution(kernel)
        return
    if kernel.layout == "nchw":
        yield from _plain_convolution(kernel)
        return
    _, rows, columns = kernel.shape
    window = kernel.kernel**2
    cin = kernel.source.channels
    out_blocks = -(-kernel.shape.channels // block)
    depth = 1 if kernel.groups > 1 else cin if kernel.direct else -(-cin // block) * block
    macs = rows * columns * out_blocks * block * depth * window
    weights = out_blocks * block * depth * window
    flat = kernel.kernel == 1 and kernel.stride == 1 and kernel.groups == 1
    run = rows * columns if flat else columns  # outputs in one go
    tail = 0 if kernel.groups > 1 else out_blocks % GROUP_BLOCKS
    groups = out_blocks if kernel.groups > 1 else -(-out_blocks // GROUP_BLOCKS)
    values_in = rows * columns * cin if flat else kernel.source.values
    yield "kernel", 1
    yield "macs", macs
    if tail:
        yield f"tail{tail}", macs * tail / out_blocks
    yield "columns", macs * (-(-run // COLUMNS) * COLUMNS / run - 1)
    if kernel.padding:
        yield "border", macs * _border_share(kernel)
    yield "calls", rows * groups * max(1, depth // block)
    yield "in", values_in
    yield "out", kernel.shape.values
    yield "weights", weights
    in_group = weights / out_blocks * min(GROUP_BLOCKS, out_blocks)
    if kernel.groups == 1 and in_group > LEVEL1_VALUES:
        yield "refetched", weights * rows
    yield "spilled", max(0, values_in + kernel.shape.values + weights - LEVEL2_VALUES)
    if kernel.add:
        yield "add", kernel.shape.values


def _plain_convolution(kernel: Kernel) -> Iterator[tuple[str, float]]:
    """A convolution in the plain layout: one matrix product, or one for each channel."""
    outputs = kernel.shape.height * kernel.shape.width
    yield "kernel", 1
    yield "macs", kernel.macs
    yield "columns", kernel.macs * (-(-outputs // PRODUCT_COLUMNS) * PRODUCT_COLUMNS / outputs - 1)
    cout = kernel.shape.channels // kernel.groups
    yield "rows", kernel.macs * (-(-cout // PRODUCT_ROWS) * PRODUCT_ROWS / cout - 1)
    yield "in", kernel.source.values
    yield "out", kernel.shape.values
    yield "weights", kernel.weights
    yield "spilled", max(0, kernel.source.values + kernel.shape.values + kernel.weights - LEVEL2_VALUES)
    if kernel.groups > 1:
        yield "calls", kernel.groups
    if kernel.kernel > 1 or kernel.stride > 1:
        yield "unfold" if kernel.stride == 1 else "gather", outputs * kernel.source.channels * kernel.kernel**2
    if kernel.add:
        yield "add", kernel.shape.values


def _integer_convolution(kernel: Kernel) -> Iterator[tuple[str, float]]:
    """A convolution of integers: one matrix product with the channels last, or a loop over the window."""
    outputs = kernel.shape.height * kernel.shape.width
    channels, window = kernel.shape.channels, kernel.kernel**2
    yield "kernel", 1
    yield "in", kernel.source.values
    yield "out", kernel.shape.values
    yield "weights", kernel.weights
    yield "spilled", max(0, kernel.source.values + kernel.shape.values + kernel.weights - 4 * LEVEL2_VALUES)
    if kernel.groups > 1:
        yield "macs", outputs * window * _up(channels, INTEGER_CHANNELS)
        yield "calls", outputs
        return
    depth = kernel.source.channels * window
    macs = outputs * channels * _up(depth, INTEGER_DEPTH)
    yield "macs", macs
    yield "columns", macs * (_up(channels, INTEGER_COLUMNS) / channels - 1)
    yield "calls", outputs * (_up(channels, INTEGER_COLUMNS) // INTEGER_COLUMNS)
    if kernel.kernel > 1 or kernel.stride > 1:
        yield "unfold", outputs * depth


def _up(count: int, step: int) -> int:
    """The multiple of `step` that holds `count`."""
    return -(-count // step) * step


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


def _border_share(kernel: Kernel) -> float:
    """Share of outputs whose window reaches into the padding."""
    inner = 1.0
    for size, outputs in zip(kernel.source[1:], kernel.shape[1:], strict=True):
        first = -(-kernel.padding // kernel.stride)
        last = (size + kernel.padding - kernel.kernel) // kernel.stride
        inner *= max(0, min(last, outputs - 1) - first + 1) / outputs
    return 1 - inner

"""What makes an integer convolution slow; `latency.features` says what quantities are, and names those that both share.

The loops are those of MLAS in ONNX Runtime 1.31. Where the convolution requantises itself (`latency.kernel.Kernel.requantized`)
they are in ``convsym.cpp``, ``ConvSymKernelAvx2.S`` and ``ConvSymKernelAvx512Core.S``; they always compute whole tiles of
`Tile.outputs` outputs, whether there are so many or not. Else they are in ``qlinearconv.cc``, ``qdwconv_avx2.cpp`` and a matrix
product.
"""

from collections.abc import Iterator
from typing import NamedTuple

from latency.kernel import Kernel

CHANNELS = 16  # that one vector of weights serves
DEPTH = 4  # inputs multiplied and added by one instruction
LEVEL1_BYTES, LEVEL2_BYTES = 32 * 1024, 1024 * 1024
OUTPUTS = 240  # worked on with one group of output channels before the next group
LOOP_CHANNELS, HALF_LOOP_CHANNELS = (
    16,
    8,
)  # of the depthwise loop that does not requantise; what is left goes one by one


class Tile(NamedTuple):
    """What an instruction set's loops compute together.

    Attributes:
        outputs: places of the output map,
        channels: times channels of it.
        product_rows: outputs of a tile of the matrix product,
        product_columns: its channels,
        product_depth: and what its sums are padded to.
    """

    outputs: int
    channels: int
    product_rows: int
    product_columns: int
    product_depth: int


TILES = {  # by channels in a block of the runtime's float32 layout
    8: Tile(outputs=4, channels=16, product_rows=4, product_columns=16, product_depth=4),
    16: Tile(outputs=6, channels=64, product_rows=6, product_columns=16, product_depth=4),
    1: Tile(outputs=4, channels=16, product_rows=8, product_columns=8, product_depth=8),
}


def integer_convolution(kernel: Kernel, block: int) -> Iterator[tuple[str, float]]:
    """Quantities of one ``QLinearConv``."""
    tile = TILES.get(block, TILES[8])
    yield "kernel", 1
    yield "in", kernel.source.values
    yield "out", kernel.shape.values
    yield "weights", kernel.weights
    yield "spilled", max(0, kernel.source.values + kernel.shape.values + kernel.weights - LEVEL2_BYTES)
    if kernel.groups > 1:
        yield from _depthwise(kernel, tile) if kernel.requantized else _depthwise_loop(kernel)
    elif kernel.requantized:
        yield from _windows(kernel, tile)
    else:
        yield from _product(kernel, tile)


def _windows(kernel: Kernel, tile: Tile) -> Iterator[tuple[str, float]]:
    outputs, places = kernel.shape.height * kernel.shape.width, kernel.kernel**2
    depth = kernel.source.channels * places
    tiles, groups = -(-outputs // tile.outputs), -(-kernel.shape.channels // tile.channels)
    yield "macs", tiles * tile.outputs * up(kernel.shape.channels, CHANNELS) * depth
    yield "broadcasts", tiles * tile.outputs * groups * depth / DEPTH
    yield "calls", tiles * groups
    if kernel.kernel > 1 or kernel.stride > 1:
        yield "taps", outputs * places
        yield "pointers", tiles * groups * places
    if min(tile.channels, kernel.shape.channels) * depth > LEVEL1_BYTES:
        yield "refetched", tiles * kernel.shape.channels * depth
    if OUTPUTS * depth > LEVEL1_BYTES:
        yield "reread", outputs * depth * (groups - 1)


def _depthwise(kernel: Kernel, tile: Tile) -> Iterator[tuple[str, float]]:
    outputs, places, channels = kernel.shape.height * kernel.shape.width, kernel.kernel**2, kernel.shape.channels
    tiles = -(-outputs // tile.outputs)
    yield "macs", tiles * tile.outputs * channels * places
    yield "calls", tiles * -(-channels // tile.channels)
    yield "taps", outputs * places


def _depthwise_loop(kernel: Kernel) -> Iterator[tuple[str, float]]:
    outputs, places, channels = kernel.shape.height * kernel.shape.width, kernel.kernel**2, kernel.shape.channels
    rest = channels % LOOP_CHANNELS
    yield "macs", outputs * places * (channels - rest)
    yield "half", outputs * places * (rest >= HALF_LOOP_CHANNELS)
    yield "tail", outputs * places * (rest % HALF_LOOP_CHANNELS)
    yield "taps", outputs * places
    yield "calls", outputs * (-(-channels // LOOP_CHANNELS))


def _product(kernel: Kernel, tile: Tile) -> Iterator[tuple[str, float]]:
    outputs, places, channels = kernel.shape.height * kernel.shape.width, kernel.kernel**2, kernel.shape.channels
    depth = kernel.source.channels * places
    padded = up(outputs, tile.product_rows) * up(channels, tile.product_columns)
    yield "macs", padded * up(depth, tile.product_depth)
    yield "tiles", padded / (tile.product_rows * tile.product_columns)
    yield "pack", outputs * up(depth, tile.product_depth)
    yield "tail", outputs * (channels % DEPTH)
    if kernel.kernel > 1 or kernel.stride > 1:
        yield "unfold", outputs * depth
        yield "taps", outputs * places


def up(count: int, step: int) -> int:
    """The multiple of `step` that holds `count`."""
    return -(-count // step) * step

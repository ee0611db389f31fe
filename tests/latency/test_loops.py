"""What instruction sets compute together: AVX2 and AVX-512 have other tiles for the same convolution."""

import pytest

from latency.features import quantities
from latency.kernel import Kernel
from searchspace.graph import Shape


def pointwise(*, outputs: int, channels: int, layout: str = "nchwc") -> Kernel:
    return Kernel("Conv", layout, Shape(32, 1, outputs), Shape(channels, 1, outputs))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "avx2", "avx512"), [(1, 1, 1), (3, 1, 1), (5, 2, 2), (6, 2, 1), (7, 3, 2), (9, 3, 2), (12, 4, 2)]
)
def test_a_row_is_cut_into_tiles(outputs, avx2, avx512):
    for block, tiles in ((8, avx2), (16, avx512)):
        found = quantities([pointwise(outputs=outputs, channels=4 * block)], nchwc_block=block)
        assert found["nchwc pointwise:tiles"] == tiles


@pytest.mark.parametrize(("channels", "stall"), [(8, 5), (16, 2), (24, 0), (32, 0)])
def test_few_channels_cannot_keep_avx2_busy(channels, stall):
    """Tiles of 3 outputs: with one block of channels 3 of the 8 sums are on their way, with two 6."""
    found = quantities([pointwise(outputs=3, channels=channels)], nchwc_block=8)
    assert found.get("nchwc pointwise:stall", 0) == stall * 32 * 8


def test_left_over_rows_of_a_product_are_one_tile_in_avx2_and_two_in_avx512():
    def rows(channels: int, block: int) -> float:
        kernel = pointwise(outputs=16, channels=channels, layout="nchw")
        return quantities([kernel], nchwc_block=block).get("nchw pointwise:rows", 0) / (16 * 32)

    assert [rows(channels, 8) for channels in range(6, 13)] == [0, 3, 2, 1, 0, 0, 0]
    assert [rows(channels, 16) for channels in range(6, 13)] == [0, 3, 2, 1, 0, 0, 0]
    assert [rows(channels, 1) for channels in range(4, 9)] == [0, 1, 0, 1, 0]


def test_a_product_s_columns_fill_whole_vectors():
    kernel = pointwise(outputs=17, channels=6, layout="nchw")
    macs = {block: quantities([kernel], nchwc_block=block)["nchw pointwise:macs"] / (6 * 32) for block in (8, 16)}
    assert macs == {8: 24, 16: 32}

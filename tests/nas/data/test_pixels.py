"""Images of every mode and size become square 8-bit pixels."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data.pixels import decode, look, natural_resolution
from tests.nas.data.making import encoded, random_images


def saved(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


@pytest.mark.parametrize("format_", ["PNG", "BMP", "PPM", "TIFF", "GIF"])
def test_lossless_formats_keep_grey_pixels(format_: str) -> None:
    image = random_images(1, channels=1)[0]
    assert np.array_equal(decode(encoded(image, format_), resolution=8, channels=1)[..., 0], image)


@pytest.mark.parametrize("format_", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(format_: str) -> None:
    image = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    assert np.abs(decode(encoded(image, format_), resolution=16, channels=3).astype(int) - image).max() <= 8


@pytest.mark.parametrize("channels", [1, 3])
@settings(deadline=None)
@given(width=st.integers(1, 40), height=st.integers(1, 40), resolution=st.integers(1, 24))
def test_any_size_becomes_the_resolution_and_a_flat_image_stays_flat(
    channels: int, width: int, height: int, resolution: int
) -> None:
    pixels = decode(np.full((height, width, 3), 77, dtype=np.uint8), resolution=resolution, channels=channels)
    assert pixels.shape == (resolution, resolution, channels)
    assert pixels.dtype == np.uint8
    assert (pixels == 77).all()


def test_the_centre_is_cut_out_with_its_aspect_kept() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    assert (decode(wide, resolution=10, channels=3) == 255).all()


def test_a_large_jpeg_is_as_if_decoded_in_full() -> None:
    slope = np.tile(np.linspace(0, 255, 640).astype(np.uint8)[:, None], (1, 640))
    small = decode(slope, resolution=32, channels=1).astype(int)
    assert np.abs(decode(encoded(slope, "JPEG"), resolution=32, channels=1) - small).max() <= 3


def test_sixteen_bits_keep_the_upper_eight() -> None:
    values = np.array([[0x0000, 0x12FF], [0x8000, 0xFFFF]], dtype=np.uint16)
    for format_ in ("PNG", "TIFF", "PPM"):
        pixels = decode(saved(Image.fromarray(values), format_), resolution=2, channels=1)
        assert pixels[..., 0].tolist() == [[0x00, 0x12], [0x80, 0xFF]], format_


def test_transparent_pixels_lie_on_white() -> None:
    layer = np.zeros((2, 2, 4), dtype=np.uint8)
    layer[0, 0] = (10, 20, 30, 255)
    pixels = decode(encoded(layer), resolution=2, channels=3)
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert (pixels[1] == 255).all()


def test_palettes_are_resolved() -> None:
    colours = Image.new("P", (2, 2))
    colours.putpalette([0, 0, 0, 255, 0, 0])
    colours.putpixel((0, 0), 1)
    greys = Image.new("P", (2, 2))
    greys.putpalette([0, 0, 0, 9, 9, 9])
    greys.putpixel((0, 0), 1)
    assert decode(saved(colours), resolution=2, channels=3)[0, 0].tolist() == [255, 0, 0]
    assert decode(saved(greys), resolution=2, channels=1)[0, 0].tolist() == [9]
    seen = [look(saved(image)) for image in (colours, greys)]
    assert [one is not None and one.grey for one in seen] == [False, True]


def test_transparency_of_a_palette_lies_on_white() -> None:
    image = Image.new("P", (2, 2))
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert (decode(saved(image, transparency=0), resolution=2, channels=3) == 255).all()


def test_cmyk_and_bilevel_images() -> None:
    assert decode(saved(Image.new("CMYK", (8, 8)), "JPEG"), resolution=8, channels=3).min() >= 250
    assert (decode(saved(Image.new("1", (8, 8), 1)), resolution=8, channels=1) == 255).all()


def test_a_cameras_orientation_is_applied() -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    pixels = decode(saved(Image.fromarray(image), exif=exif), resolution=8, channels=3)
    assert (pixels[4:] == 255).all()
    assert (pixels[:4] == 0).all()


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="no known range"):
        decode(saved(Image.new("F", (4, 4)), "TIFF"), resolution=4, channels=1)


def test_other_formats_are_not_opened() -> None:
    """Pillow knows formats whose decoders run other programs; none of them is tried."""
    content = saved(Image.new("RGB", (4, 4)), "EPS")
    assert look(content) is None
    with pytest.raises(ValueError, match="these bytes are no PNG, JPEG"):
        decode(content, resolution=4, channels=3)


@settings(deadline=None)
@given(sides=st.lists(st.integers(1, 5000), min_size=1, max_size=9))
def test_natural_resolution_is_one_that_strides_divide(sides: list[int]) -> None:
    resolution = natural_resolution(sides)
    assert 1 <= resolution <= 224
    assert resolution < 32 or resolution % 32 == 0 or {resolution} == set(sides)

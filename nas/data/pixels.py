"""From an encoded image of any size and mode to a square of 8-bit pixels."""

import io
from dataclasses import dataclass

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nas.data.source import Encoded

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

DECODER = f"1 (Pillow {PIL.__version__})"
"""Names the rules below; part of what a cache entry is found by. Count up when they change."""

MAX_NATURAL_RESOLUTION_PX = 224
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})


@dataclass(frozen=True)
class Look:
    """What an image's header says.

    Attributes:
        side_px: the shorter side.
        grey: whether it has no colour.
    """

    side_px: int
    grey: bool


def look(encoded: Encoded) -> Look | None:
    """Read the header of an image; None for one that cannot be read."""
    try:
        image = _open(encoded)
        return Look(min(image.size), grey=_is_grey(image))
    except Exception:  # decoding will meet it again, and say why
        return None


def natural_resolution(sides_px: list[int]) -> int:
    """Resolution for images of these (shorter) sides: their own if all are equal, else their median.

    At most 224; a median of 32 and more is rounded to a multiple of 32, which strides of a network divide evenly.
    """
    median_px = min(int(np.median(sides_px)), MAX_NATURAL_RESOLUTION_PX)
    if len(set(sides_px)) == 1 or median_px < 32:
        return median_px
    return round(median_px / 32) * 32


def decode(encoded: Encoded, *, resolution: int, channels: int) -> NDArray[np.uint8]:
    """Decode an image to (resolution, resolution, channels).

    The orientation that a camera noted is applied; 16-bit images keep their upper eight bits; transparent pixels lie on white;
    of an animation the first frame counts. The shorter side is resized (antialiased) and the centre cut out.

    Raises:
        Exception: whatever Pillow meets in a damaged image; its text is the reason.
    """
    image = _open(encoded)
    image.draft(None, (2 * resolution, 2 * resolution))  # large JPEGs: decode at a fraction of their size
    image = _upright(image, channels)
    if image.size != (resolution, resolution):
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.uint8).reshape(resolution, resolution, channels)


def whole(encoded: Encoded, *, channels: int) -> NDArray[np.uint8]:
    """An image at its own size, (H, W, channels); `decode` makes the same of it as of the encoded one.

    Raises:
        Exception: as `decode`.
    """
    pixels = np.asarray(_upright(_open(encoded), channels), dtype=np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def _upright(image: Image.Image, channels: int) -> Image.Image:
    """An image as it is looked at, grey or in colour."""
    return _opaque(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")


def _open(encoded: Encoded) -> Image.Image:
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded[..., 0] if encoded.shape[2:] == (1,) else encoded)
    if not encoded:
        raise ValueError("there is a label but no image")
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except PIL.UnidentifiedImageError:  # its text is about the object in memory
        raise ValueError(f"these bytes are no {', '.join(FORMATS)} image") from None


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in GREY_MODES


def _opaque(image: Image.Image) -> Image.Image:
    """The image in a mode of 8 bits a channel and without transparency."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 0xFFFF) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image

"""RandAugment (Cubuk et al., arXiv 1909.13719) for a whole batch at once.

Each image draws its own changes, as a few whole numbers: what happens to an image follows from these alone, whatever batch it is
in. So a teacher can look at an image in advance exactly as its student will see it. Geometric changes move no pixel by themselves
but add to the map of `nas.data.augmentation`, by which crop and flip fetch every pixel once; the others follow, in their order.
Unlike in the paper's code pixels from outside are the mirrored border's.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TONAL = ("auto_contrast", "equalize", "solarize", "posterize", "colour", "contrast", "brightness", "sharpness")
CHANGES = (*GEOMETRIC, *TONAL, "identity")
"""The 14 changes; an image draws a position here and a sign."""

STRONGEST = 30
ROTATE_DEGREES, SHEAR, TRANSLATE, BLEND, BITS = 30.0, 0.3, 0.45, 0.9, 4
"""What the strongest magnitude means; TRANSLATE as a share of the side, BLEND as the distance of a factor from 1."""


def draw_changes(images: int, changes: int, generator: torch.Generator) -> Tensor:
    """Position in `CHANGES` and sign (0 or 1) of so many changes: int64, (images, 2 · changes)."""
    kinds = torch.randint(0, len(CHANGES), (images, changes), generator=generator)
    signs = torch.randint(0, 2, (images, changes), generator=generator)
    return torch.stack((kinds, signs), dim=2).view(images, 2 * changes)


def moved(drawn: Tensor, resolution: int, *, magnitude: float) -> tuple[Tensor, Tensor]:
    """Row and column that each pixel comes from: two of int64, (B, R, R), possibly outside of the image.

    Args:
        drawn: (B, 2 · changes), as `draw_changes` gives it.
        resolution: R, pixels.
        magnitude: 0 to 30.
    """
    strength = magnitude / STRONGEST
    count = len(drawn)
    zero, one = torch.zeros(count, device=drawn.device), torch.ones(count, device=drawn.device)
    yy, yx, xy, xx, ty, tx = one, zero, zero, one, zero, zero  # (y, x) → (yy·y + yx·x + ty, xy·y + xx·x + tx)
    for change in drawn.view(count, -1, 2).unbind(1):
        kinds, signs = change.unbind(1)
        amount = strength * (1.0 - 2.0 * signs)

        def of(name: str, amount: Tensor = amount, kinds: Tensor = kinds) -> Tensor:
            return torch.where(kinds == CHANGES.index(name), amount, 0.0)

        angle = of("rotate") * math.radians(ROTATE_DEGREES)
        cos, sin = angle.cos(), angle.sin()
        a, b = cos, sin + SHEAR * of("shear_y")
        c, d = SHEAR * of("shear_x") - sin, cos
        yy, yx, xy, xx = a * yy + b * xy, a * yx + b * xx, c * yy + d * xy, c * yx + d * xx
        ty, tx = a * ty + b * tx, c * ty + d * tx
        ty = ty + TRANSLATE * resolution * of("translate_y")
        tx = tx + TRANSLATE * resolution * of("translate_x")
    middle = (resolution - 1) / 2
    places = torch.arange(resolution, device=drawn.device) - middle
    rows = yy[:, None, None] * places[:, None] + yx[:, None, None] * places + (ty + middle)[:, None, None]
    columns = xy[:, None, None] * places[:, None] + xx[:, None, None] * places + (tx + middle)[:, None, None]
    return rows.round().to(torch.int64), columns.round().to(torch.int64)


def toned(images: Tensor, drawn: Tensor, *, magnitude: float) -> Tensor:
    """The images after their changes of tone; `images` itself is changed.

    Args:
        images: uint8, (B, R, R, C).
        drawn: (B, 2 · changes), as `draw_changes` gives it; on the CPU, so that a GPU need not be asked who changes.
        magnitude: 0 to 30.
    """
    for drawn_change in drawn.view(len(drawn), -1, 2).unbind(1):
        kinds, signs = drawn_change.unbind(1)
        for name, change in _TONES.items():
            rows = (kinds == CHANGES.index(name)).nonzero()[:, 0]
            if len(rows):
                amount = (magnitude / STRONGEST * (1.0 - 2.0 * signs[rows])).to(images.device).view(-1, 1, 1, 1)
                rows = rows.to(images.device)
                images[rows] = change(images[rows].float(), amount).round_().clamp_(0, 255).to(torch.uint8)
    return images


def _auto_contrast(x: Tensor, amount: Tensor) -> Tensor:
    low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return torch.where(high > low, (x - low) * (255 / (high - low).clamp_min(1)), x)


def _equalize(x: Tensor, amount: Tensor) -> Tensor:
    """As Pillow does it: the table is the histogram's running sum, in steps that leave the last level out."""
    levels = x.permute(0, 3, 1, 2).flatten(2).to(torch.int64)  # (n, C, R²)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=x.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    last = counts.gather(2, levels.amax(2, keepdim=True))
    step = (counts.sum(2, keepdim=True) - last) // 255
    table = ((counts.cumsum(2) - counts + step // 2) // step.clamp_min(1)).clamp_max(255)
    table = torch.where(step > 0, table, torch.arange(256, device=x.device))
    return table.gather(2, levels).to(x.dtype).view(x.shape[0], x.shape[3], *x.shape[1:3]).permute(0, 2, 3, 1)


def _solarize(x: Tensor, amount: Tensor) -> Tensor:
    return torch.where(x >= 255 * (1 - amount.abs()), 255 - x, x)


def _posterize(x: Tensor, amount: Tensor) -> Tensor:
    step = 2.0 ** (BITS * amount.abs()).round()
    return (x / step).floor() * step


def _colour(x: Tensor, amount: Tensor) -> Tensor:
    return _blend(_grey(x), x, amount)


def _contrast(x: Tensor, amount: Tensor) -> Tensor:
    return _blend(_grey(x).mean((1, 2, 3), keepdim=True).round(), x, amount)


def _brightness(x: Tensor, amount: Tensor) -> Tensor:
    return x * (1 + BLEND * amount)


def _sharpness(x: Tensor, amount: Tensor) -> Tensor:
    """Blended with what Pillow calls smooth; the outermost pixels stay."""
    if min(x.shape[1:3]) < 3:
        return x
    planes = x.permute(0, 3, 1, 2)
    smooth = planes.clone()
    smooth[:, :, 1:-1, 1:-1] = (9 * F.avg_pool2d(planes, 3, 1) + 4 * planes[:, :, 1:-1, 1:-1]) / 13
    return _blend(smooth.permute(0, 2, 3, 1), x, amount)


def _blend(plain: Tensor, x: Tensor, amount: Tensor) -> Tensor:
    """`plain` at a factor of 0, the image at 1, beyond it above that."""
    return plain + (1 + BLEND * amount) * (x - plain)


def _grey(x: Tensor) -> Tensor:
    if x.shape[3] == 1:
        return x
    return (x * torch.tensor((0.299, 0.587, 0.114), device=x.device)).sum(3, keepdim=True)


_TONES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "colour": _colour,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}

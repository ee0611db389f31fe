"""Random changes to training images that keep their meaning, for a whole batch at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nas.data.dataset import Data
from nas.data.rand_augment import draw_changes, moved
from nas.errors import DataError

HANDED = frozenset({"digits", "mnist", "emnist", "kmnist", "qmnist", "usps", "svhn"})
"""Data sets of characters: a mirrored one is another character, or none."""


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Attributes:
        crop_px: the image is moved by up to so many pixels each way, what leaves its frame is cut off, and its mirrored border
            fills the gap (reflection without repeating the edge). None: an eighth of the resolution.
        flip: whether it is mirrored left to right, every second time.
        changes: RandAugment's number of changes; see `nas.data.rand_augment`.
        magnitude: how strong these are, 0 to 30.
    """

    crop_px: int | None = None
    flip: bool = True
    changes: int = 0
    magnitude: float = 9.0

    def margin_px(self, resolution: int) -> int:
        """How far images of this resolution are moved.

        Raises:
            DataError: the margin is negative, or too wide for the image to fill it.
        """
        margin_px = resolution // 8 if self.crop_px is None else self.crop_px
        if not 0 <= margin_px < max(resolution, 1):
            raise DataError(
                f"the crop must be from 0 to {resolution - 1} px at a resolution of {resolution}, got {margin_px}"
            )
        return margin_px

    def draw(self, images: int, resolution: int, generator: torch.Generator) -> Tensor:
        """Random (row offset, column offset, flip, and RandAugment's changes) for so many images: int64, (images, 3 + …)."""
        margin_px = self.margin_px(resolution)
        offsets = torch.randint(-margin_px, margin_px + 1, (images, 2), generator=generator)
        flips = torch.randint(0, 1 + self.flip, (images, 1), generator=generator)
        changes = [draw_changes(images, self.changes, generator)] if self.changes else []
        return torch.cat((offsets, flips, *changes), dim=1)


def default_augmentation(data: Data) -> Augmentation:
    """Crop always; flip unless the images are characters: `digits`, IDX files, and data sets named as in `HANDED`."""
    return Augmentation(flip=data.kind not in ("digits", "idx") and data.name.lower() not in HANDED)


def source_pixels(drawn: Tensor, resolution: int, *, magnitude: float = 0.0) -> Tensor:
    """Where each pixel of the changed images comes from.

    Args:
        drawn: (B, 3 or more), as `Augmentation.draw` gives it.
        resolution: R, pixels.
        magnitude: of RandAugment's changes.

    Returns:
        int64, (B, R, R): positions from 0 to R² − 1 in an image's rows laid end to end.
    """
    if drawn.shape[1] > 3:
        rows, columns = moved(drawn[:, 3:], resolution, magnitude=magnitude)
        rows = _reflected(rows + drawn[:, 0, None, None], resolution)
        columns = _reflected(columns + drawn[:, 1, None, None], resolution)
        columns = torch.where(drawn[:, 2, None, None].bool(), resolution - 1 - columns, columns)
        return rows * resolution + columns
    places = torch.arange(resolution, device=drawn.device)
    rows = _reflected(places + drawn[:, 0:1], resolution)
    columns = _reflected(places + drawn[:, 1:2], resolution)
    columns = torch.where(drawn[:, 2:3].bool(), columns.flip(1), columns)
    return rows[:, :, None] * resolution + columns[:, None, :]


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places beyond either edge, mirrored back into 0 … size − 1; what is farther out still is at an edge."""
    return ((size - 1) - ((size - 1) - places.abs()).abs()).clamp_(min=0)

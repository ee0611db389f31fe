"""Mixup and CutMix: images of a batch blended with, or cut into, one another, and their labels in the same shares."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas.errors import DataError


@dataclass(frozen=True)
class Mixing:
    """How the images of a batch are mixed with their neighbours in it.

    Attributes:
        mixup: parameter of the Beta distribution of the share that stays (Zhang et al., arXiv 1710.09412); 0: none.
        cutmix: the same for the area that stays (Yun et al., arXiv 1905.04899); 0: none. With both, each step draws one.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} must be at least 0, got {getattr(self, name)}")

    def apply(self, images: Tensor, *, seed: int) -> tuple[Tensor, float]:
        """Mix a batch; what happens is a pure function of `seed`.

        Args:
            images: (B, C, H, W), normalised.
            seed: of the step.

        Returns:
            The mixed images, and the share of each image that stayed; the rest is that of the one before it (`before`).
        """
        source = np.random.default_rng(seed)
        if self.cutmix and (not self.mixup or source.random() < 0.5):
            return _cut(images, float(source.beta(self.cutmix, self.cutmix)), source)
        if not self.mixup:
            return images, 1.0
        share = float(source.beta(self.mixup, self.mixup))
        return torch.lerp(before(images), images, share), share


def before(batch: Tensor) -> Tensor:
    """For each entry of a batch the one before it: what it is mixed with."""
    return batch.roll(1, 0)


def _cut(images: Tensor, share: float, source: np.random.Generator) -> tuple[Tensor, float]:
    height, width = images.shape[2:]
    side = (1 - share) ** 0.5
    middle = source.random(2)
    top, left = (
        int(np.clip(round(size * (where - side / 2)), 0, size))
        for size, where in zip((height, width), middle, strict=True)
    )
    bottom, right = (
        int(np.clip(round(size * (where + side / 2)), 0, size))
        for size, where in zip((height, width), middle, strict=True)
    )
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = before(images)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)

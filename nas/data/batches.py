"""Whole batches from images in memory: shuffled, augmented and normalised by a few tensor operations."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nas.data.augmentation import Augmentation, source_pixels
from nas.data.dataset import Data, Split
from nas.errors import DataError

DEVICE_MEMORY_SHARE = 0.5
"""Images move to the device if they take no more than this share of its free memory."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Batches:
    """Serves a split, epoch after epoch.

    Image number `p` since the start, with its place in the shuffled order and its augmentation, is a pure function of `seed` and
    `p`: neither batch size nor what was served before matters. A run that is resumed at image `p` sees what it would have seen.

    Attributes:
        split: what is served.
        data: whose `mean` and `std` normalise, whichever split is served.
        batch_size: images in a batch; the last one may be smaller.
        augment: random changes, for training; None for evaluation.
        shuffle: a new order every epoch; False keeps the split's.
        drop_last: leave out a last batch that is not full.
        seed: draws orders and augmentations.
        device: where batches are wanted. The images themselves are kept there too if they fit.
        channels_last: memory format of the batches.
    """

    split: Split
    data: Data
    batch_size: int
    augment: Augmentation | None = None
    shuffle: bool = True
    drop_last: bool = False
    seed: int = 0
    device: torch.device | str = "cpu"
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"the batch size must be at least 1, got {self.batch_size}")
        if not len(self.split):
            raise DataError(f"{self.data.name}: a split without images cannot be served; give it images")
        if self.augment is not None:
            self.augment.margin_px(self.data.resolution)

    def __len__(self) -> int:
        """Batches in an epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full if self.drop_last or not rest else full + 1

    def epoch(self, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch, counted from 0: every image once. Batches are as in `stream`."""
        return self.stream(start=epoch * len(self.split), images=len(self.split))

    def stream(self, *, start: int, images: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The next `images` images after the first `start`, through as many epochs as that takes.

        Yields:
            Images, float32, (B, C, H, W), normalised, and labels, int64, (B,); both on the device.
        """
        end = start + images - (images % self.batch_size if self.drop_last else 0)
        epoch, plan = -1, torch.empty(0)
        while start < end:
            pieces: list[Tensor] = []
            missing = min(self.batch_size, end - start)
            while missing:  # a batch may reach into the next epoch
                wanted, offset = divmod(start, len(self.split))
                if wanted != epoch:
                    epoch, plan = wanted, self._plan(wanted)
                pieces.append(plan[offset : offset + missing])
                start += len(pieces[-1])
                missing -= len(pieces[-1])
            yield self._batch(torch.cat(pieces))

    def _plan(self, epoch: int) -> Tensor:
        """An epoch in order: per image its row in the split and, where augmented, what is done to it; int64, (N, 1 or 4)."""
        digest = hashlib.blake2b(f"{self.seed} {epoch}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest) >> 1)  # on the CPU, so alike for every device
        count = len(self.split)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        if self.augment is None:
            return order[:, None]
        return torch.cat((order[:, None], self.augment.draw(count, self.data.resolution, generator)), dim=1)

    def _batch(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        plan = plan.to(self._images.device)
        rows, drawn = plan[:, 0], plan[:, 1:]
        if self.augment is None:
            chosen = self._images[rows]
        else:
            size, channels = self.data.resolution, self.data.channels
            pixels = source_pixels(drawn, size) + rows[:, None, None] * (size * size)
            chosen = self._images.view(-1, channels).index_select(0, pixels.view(-1)).view(-1, size, size, channels)
        images = chosen.to(self.device).permute(0, 3, 1, 2).to(torch.float32).sub_(self._mean).mul_(self._inverse_std)
        return images if self.channels_last else images.contiguous(), self._labels[rows].to(self.device)

    @cached_property
    def _images(self) -> Tensor:
        """(N, H, W, C): a pixel's channels lie together, so that one index moves them all."""
        images = self.split.images.permute(0, 2, 3, 1).contiguous()
        return images.to(self.device) if _fits(images, torch.device(self.device)) else images

    @cached_property
    def _labels(self) -> Tensor:
        return self.split.labels.to(self._images.device)

    @cached_property
    def _mean(self) -> Tensor:
        return 255 * torch.tensor(self.data.mean, device=self.device).view(1, -1, 1, 1)

    @cached_property
    def _inverse_std(self) -> Tensor:
        return 1 / (255 * torch.tensor(self.data.std, device=self.device).view(1, -1, 1, 1))


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= DEVICE_MEMORY_SHARE * free_bytes

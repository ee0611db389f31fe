"""Whole batches from images in memory: shuffled, augmented and normalised by a few tensor operations."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from nas.data.augmentation import Augmentation, source_pixels
from nas.data.dataset import Data, Split
from nas.data.rand_augment import toned
from nas.errors import DataError

DEVICE_MEMORY_SHARE = 0.5
"""Images move to the device if they take no more than this share of its free memory."""
AT_A_TIME = 4096


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
        replicas: images are augmented in so many ways only, one an epoch, over and over, so that a teacher can label them in
            advance; None: anew every epoch.
        part: (rank, ranks): which share of every batch is served, where several processes train together.
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
    replicas: int | None = None
    part: tuple[int, int] = (0, 1)

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
        for epochs in self._plans(start, images):
            yield self._batch(torch.cat([plan for _, plan in epochs]))

    def replica(self, number: int, *, start: int, images: int) -> Iterator[Tensor]:
        """So many images of one replica in the order of the split, from number `start` on, in batches; see `replicas`."""
        plan = torch.cat((torch.arange(len(self.split))[:, None], self._changes(number)), dim=1)
        for piece in torch.split(plan[start : start + images], self.batch_size):
            yield self._batch(piece)[0]

    def taught(self, answers: Sequence[Tensor], *, start: int, images: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As `stream`, with what a teacher said of each image, float16, (B, K).

        Args:
            answers: for each of the replicas, (N, K).
            start: as for `stream`.
            images: as for `stream`.
        """
        for epochs in self._plans(start, images):
            said = [answers[epoch % len(answers)][plan[:, 0]] for epoch, plan in epochs]
            yield *self._batch(torch.cat([plan for _, plan in epochs])), torch.cat(said).to(self.device)

    def _plans(self, start: int, images: int) -> Iterator[list[tuple[int, Tensor]]]:
        """For every batch its piece of an epoch's plan, or of several where it reaches into the next: epoch and piece."""
        rank, ranks = self.part
        end = start + images - (images % self.batch_size if self.drop_last else 0)
        epoch, plan = -1, torch.empty(0)
        while start < end:
            batch = min(self.batch_size, end - start)
            mine = range(start + batch * rank // ranks, start + batch * (rank + 1) // ranks)
            pieces: list[tuple[int, Tensor]] = []
            place = mine.start
            while place < mine.stop:
                wanted, offset = divmod(place, len(self.split))
                if wanted != epoch:
                    epoch, plan = wanted, self._plan(wanted)
                pieces.append((epoch, plan[offset : offset + mine.stop - place]))
                place += len(pieces[-1][1])
            yield pieces
            start += batch

    def _plan(self, epoch: int) -> Tensor:
        """An epoch in order: per image its row in the split and, where augmented, what is done to it; int64, (N, 1 or more)."""
        generator = _generator(f"{self.seed} {epoch}")
        count = len(self.split)
        order = torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)
        if self.augment is None:
            return order[:, None]
        if self.replicas is not None:
            return torch.cat((order[:, None], self._changes(epoch % self.replicas)[order]), dim=1)
        return torch.cat((order[:, None], self.augment.draw(count, self.data.resolution, generator)), dim=1)

    def _changes(self, replica: int) -> Tensor:
        """What is done to each image of the split in a replica; int64, (N, 0 or more). The seed of a training does not matter."""
        count = len(self.split)
        if self.augment is None:
            return torch.empty(count, 0, dtype=torch.int64)
        return self.augment.draw(count, self.data.resolution, _generator(f"replica {replica}"))

    def _batch(self, planned: Tensor) -> tuple[Tensor, Tensor]:
        plan = planned.to(self._images.device)
        rows, drawn = plan[:, 0], plan[:, 1:]
        places = rows if self._rows is None else self._rows[rows]
        if self.augment is None:
            chosen = self._images[places]
        else:
            size, channels, magnitude = self.data.resolution, self.data.channels, self.augment.magnitude
            pixels = source_pixels(drawn, size, magnitude=magnitude) + places[:, None, None] * (size * size)
            chosen = self._images.view(-1, channels).index_select(0, pixels.view(-1)).view(-1, size, size, channels)
            if self.augment.changes:
                chosen = toned(chosen, planned[:, 4:], magnitude=magnitude)
        lines = chosen.to(self.device).flatten(2).to(torch.float32).sub_(self._mean).mul_(self._inverse_std)
        images = lines.view(chosen.shape).permute(0, 3, 1, 2)
        return images if self.channels_last else images.contiguous(), self._labels[rows].to(self.device)

    @cached_property
    def _served(self) -> tuple[Tensor, Tensor | None]:
        """Images, (N, H, W, C), as a pixel's channels lie together, so that one index moves them all; and the rows to look at."""
        images, rows, device = (
            self.split.images.permute(0, 2, 3, 1).contiguous(),
            self.split.rows,
            torch.device(self.device),
        )
        if device.type == "cpu" or not _fits(len(self.split) * images[:1].nbytes, device):
            return images, rows
        return (images if rows is None else _chosen(images, rows, device)).to(device), None

    @property
    def _images(self) -> Tensor:
        return self._served[0]

    @property
    def _rows(self) -> Tensor | None:
        return self._served[1]

    @cached_property
    def _labels(self) -> Tensor:
        return self.split.labels.to(self._images.device)

    @cached_property
    def _mean(self) -> Tensor:
        """For a line of pixels, (W · C,): over three channels alone arithmetic is ten times slower."""
        return 255 * torch.tensor(self.data.mean, device=self.device).repeat(self.data.resolution)

    @cached_property
    def _inverse_std(self) -> Tensor:
        return 1 / (255 * torch.tensor(self.data.std, device=self.device).repeat(self.data.resolution))


def _generator(purpose: str) -> torch.Generator:
    """A source of random numbers of its own, on the CPU, so that all devices draw alike."""
    digest = hashlib.blake2b(purpose.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def _fits(images_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return images_bytes <= DEVICE_MEMORY_SHARE * free_bytes


def _chosen(images: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Some of the images on the device, brought there bit by bit: they may be more than fit into memory."""
    here = torch.empty((len(rows), *images.shape[1:]), dtype=images.dtype, device=device)
    for start in range(0, len(rows), AT_A_TIME):
        part = rows[start : start + AT_A_TIME]
        here[start : start + len(part)] = images[part].to(device)
    return here

"""Labelled images in memory: three disjoint splits and what is known about them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.data.mapping import mapped_images
from nas.errors import DataError


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a split's images lie on disk.

    Attributes:
        file: decoded images of the whole data set.
        rows: int64, (N,): where in it each image of the split is.
    """

    file: Path
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    One with an origin is sent to another process as that: the process maps the file, and no image is copied.

    Attributes:
        images: uint8, (N, C, H, W), as decoded: 0 is black, 255 is white. `load_data` lays them out channels-last.
        labels: int64, (N,), positions in `Data.classes`.
        rows: int64, (N,): where in `images` each image is; those may then be more than N, and lie in a file that is mapped into
            memory because it is larger than that. None: the first is the first.
        origin: the same images on disk; None: nowhere.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor | None = None
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: slice | Tensor) -> "Split":
        """Some of the images, by their positions in this split; those that are mapped stay where they are."""
        origin = None if self.origin is None else Origin(self.origin.file, self.origin.rows[index])
        if self.rows is None:
            return Split(self.images[index], self.labels[index], origin=origin)
        return Split(self.images, self.labels[index], self.rows[index], origin)

    def __reduce__(self) -> tuple[Callable[..., "Split"], tuple[Any, ...]]:
        if self.origin is not None and self.origin.file.exists():
            return _mapped_split, (self.origin.file, self.labels.numpy(), self.origin.rows.numpy())
        if self.origin is not None and self.rows is not None:
            raise DataError(
                f"{self.origin.file}: decoded images that processes share must stay there, it is gone; run the same again"
            )
        return Split, (self.images, self.labels, self.rows)


def _mapped_split(file: Path, labels: Any, rows: Any) -> Split:
    places = torch.from_numpy(rows)
    return Split(mapped_images(file), torch.from_numpy(labels), places, Origin(file, places))


@dataclass(frozen=True, eq=False)
class Data:
    """A data set at one resolution, decoded and divided.

    Attributes:
        name: what people call it: the folder's or file's name, `digits`, or the name on the hub.
        kind: how it was stored: `folder`, `parquet`, `shards`, `npz`, `idx`, `digits` or `hub`.
        fingerprint: hash of the decoded pixels, the labels, the classes and the division into splits.
        classes: class names; a label is a position here.
        resolution: height and width of every image, pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        mean: per channel, over the training split, in units where 0 is black and 1 is white.
        std: standard deviation, like `mean`; never less than one grey level, so that dividing by it is safe.
        train: what networks learn from.
        validation: what a search chooses by.
        test: what is looked at once, at the end.
        class_counts: training images per class, in the order of `classes`.
        skipped: damaged images that were left out, as `where: reason`.
        notes: what a user should know about the data, one line each.
    """

    name: str
    kind: str
    fingerprint: str
    classes: tuple[str, ...]
    resolution: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    validation: Split
    test: Split
    class_counts: tuple[int, ...]
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def imbalance(self) -> float:
        """Images of the commonest class per image of the rarest one that has any, in the training split; 1 is balanced."""
        present = [count for count in self.class_counts if count]
        return max(present) / min(present)

"""Images that are arrays already: `.npz` archives, and scikit-learn's digits."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.source import (
    TEST,
    TRAIN,
    VALIDATION,
    Encoded,
    Progress,
    Rows,
    Source,
    content_digest,
    digest_array,
    number_labels,
)
from nas.errors import DataError

NPZ_KEYS = (
    (TRAIN, ("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("x", "y")),
    (
        VALIDATION,
        ("x_val", "y_val"),
        ("val_images", "val_labels"),
        ("x_valid", "y_valid"),
        ("x_validation", "y_validation"),
    ),
    (TEST, ("x_test", "y_test"), ("test_images", "test_labels")),
)
"""For each split the names of its images and labels that are understood: Keras's, MedMNIST's, and plain ones."""


@dataclass(frozen=True, eq=False)
class Part:
    """Images and labels of one split.

    Attributes:
        given: the split.
        images: (N, H, W), (N, H, W, C) or (N, C, H, W); C is 1, 3 or (last only) 4.
        labels: (N,) or (N, 1).
        where: where the images come from, for messages.
    """

    given: int
    images: NDArray[np.generic]
    labels: NDArray[np.generic]
    where: str


def array_source(parts: Sequence[Part], *, name: str, kind: str, progress: Progress) -> Source:
    """Index images that are in memory.

    Raises:
        DataError: shapes, types or counts do not fit.
    """
    images: list[NDArray[np.uint8]] = []
    for part in parts:
        if part.images.ndim == 0 or part.labels.ndim == 0 or len(part.images) != len(part.labels):
            counts = [str(len(array)) if array.ndim else "a single value" for array in (part.images, part.labels)]
            raise DataError(
                f"{part.where}: as many labels as images are needed, got {counts[0]} images and {counts[1]} labels"
            )
        images += list(_grey_or_last(_to_8_bits(part.images, part.where), part.where))
    kinds = {part.labels.dtype.kind in "US" for part in parts}
    if len(kinds) > 1:
        raise DataError(f"{name}: labels must be of one type in every split, got numbers and strings; convert them")
    labels = np.concatenate([part.labels.reshape(len(part.labels), math.prod(part.labels.shape[1:])) for part in parts])
    classes, numbers = number_labels(labels, names=None, where=name)
    starts = np.cumsum([0] + [len(part.images) for part in parts])

    def read(rows: Rows) -> Iterator[tuple[int, Encoded]]:
        for row in rows.tolist():
            yield row, images[row]

    def where(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{parts[part].where}[{row - starts[part]}]"

    progress("reading", len(images), len(images))
    return Source(
        name=name,
        kind=kind,
        classes=classes,
        labels=numbers,
        digests=digest_array(content_digest(image) for image in images),
        given=np.concatenate([np.full(len(part.images), part.given, dtype=np.int8) for part in parts]),
        read=read,
        where=where,
    )


def npz_source(path: Path, *, progress: Progress) -> Source:
    """Index an `.npz` archive; `NPZ_KEYS` has the array names that are understood.

    Raises:
        DataError: the archive is damaged, lacks the arrays, or holds Python objects (which only unpickling could read).
    """
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: cannot be read as an .npz archive; it may be damaged, cut short, or of another format"
        )
    parts: list[Part] = []
    try:
        with np.load(path, allow_pickle=False) as archive:
            for given, *pairs in NPZ_KEYS:
                for images, labels in pairs:
                    if images in archive and labels in archive:
                        parts.append(Part(given, archive[images], archive[labels], f"{path.name}: {images}"))
                        break
            found = ", ".join(archive.files) or "nothing"
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: arrays of numbers are needed, got an array of Python objects, which is not loaded because "
                "that could run code; save it with a numeric type"
            ) from error
        raise DataError(f"{path}: cannot be read as an .npz archive ({error}); it may be damaged") from error
    if not any(part.given == TRAIN for part in parts):
        raise DataError(
            f"{path}: arrays x_train and y_train (or train_images and train_labels, or images and labels) are needed, got {found}"
        )
    return array_source(parts, name=path.stem, kind="npz", progress=progress)


def digits_source(*, progress: Progress) -> Source:
    """scikit-learn's digits: 1,797 grey images of 8×8 pixels, 10 classes (Alpaydin and Kaynak, UCI, 1998)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # the file counts from 0 to 16
    return array_source([Part(TRAIN, pixels, labels, "digits")], name="digits", kind="digits", progress=progress)


def _to_8_bits(images: NDArray[np.generic], where: str) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return images.astype(np.uint8, copy=False)
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype == np.uint16:
        return (images.astype(np.uint16, copy=False) >> 8).astype(np.uint8)
    if images.dtype.kind == "f":
        values = images.astype(np.float32, copy=False)
        if not values.size or (values.min() >= 0 and values.max() <= 1):
            return np.rint(values * 255).astype(np.uint8)
        raise DataError(f"{where}: floating-point pixels must be from 0 to 1, got {values.min():g} to {values.max():g}")
    raise DataError(f"{where}: pixels must be uint8, uint16, bool, or floating-point from 0 to 1, got {images.dtype}")


def _grey_or_last(images: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    """The same images as (N, H, W) or (N, H, W, 3 or 4)."""
    if images.ndim == 4 and images.shape[-1] not in (1, 3, 4) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if 0 not in images.shape[1:] and (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (3, 4))):
        return np.ascontiguousarray(images)
    raise DataError(
        f"{where}: images must be (N, H, W), (N, H, W, channels) or (N, channels, H, W), got {images.shape}"
    )

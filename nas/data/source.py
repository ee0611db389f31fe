"""What every kind of data source is read into: an index of labelled, still encoded images."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with a stage (`reading`, `looking` (at headers), `decoding`), how many images are done, and how many there are."""

Encoded = bytes | NDArray[np.uint8]
"""An image file's bytes, or pixels as (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""

Rows = NDArray[np.int64]

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


@dataclass(frozen=True, eq=False)
class Source:
    """An index of N labelled images; the images themselves stay where they are until `read` fetches them.

    Attributes:
        name: what people call the data.
        kind: how it is stored; see `Data.kind`.
        classes: class names.
        labels: (N,), positions in `classes`.
        digests: (N,) of `S32`, hashes of the encoded images. They, not paths or positions, decide what goes into which
            split, so renamed and reordered files give the same data.
        given: (N,), the split that the source itself puts an image into. One that names no splits is all `TRAIN`.
        read: fetches the images of some rows, in any order, as pairs of row and encoded image.
        where: says where a row's image is, for messages.
        notes: what a user should know.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    labels: Rows
    digests: NDArray[np.bytes_]
    given: NDArray[np.int8]
    read: Callable[[Rows], Iterator[tuple[int, Encoded]]]
    where: Callable[[int], str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Rows) -> "Source":
        """The source of some of these images, in the order of `rows`."""
        place = {row: index for index, row in enumerate(rows.tolist())}
        return replace(
            self,
            labels=self.labels[rows],
            digests=self.digests[rows],
            given=self.given[rows],
            read=lambda wanted: ((place[row], image) for row, image in self.read(np.sort(rows[wanted]))),
            where=lambda index: self.where(int(rows[index])),
        )


def split_of(file: Path) -> str:
    """The split that a file's name begins with (`train-00000-of-00001.parquet`), else its folder's name; lower case."""
    name = file.stem.lower().replace(".", "-").split("-")[0]
    return name if name in SPLIT_NAMES else file.parent.name.lower()


def content_digest(encoded: Encoded) -> bytes:
    """Hash of one encoded image: 32 hexadecimal digits; for pixels the shape counts too."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(encoded, np.ndarray):
        digest.update(str(encoded.shape).encode())
        encoded = encoded.tobytes()
    digest.update(encoded)
    return digest.hexdigest().encode()


def digest_array(digests: Iterable[bytes]) -> NDArray[np.bytes_]:
    """Digests as an array that sorts."""
    return np.array(list(digests), dtype="S32")


def number_labels(
    values: NDArray[np.generic], *, names: tuple[str, ...] | None, where: str
) -> tuple[tuple[str, ...], Rows]:
    """Class names and positions in them, for labels as a file holds them.

    Args:
        values: (N,) or (N, 1), whole numbers or strings.
        names: the classes in the order of the numbers, where the source tells them.
        where: the labels' place, for messages.

    Raises:
        DataError: several labels an image, labels of another type, or a number that no name belongs to.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DataError(
            f"{where}: one label an image is needed, got an array of shape {values.shape}; give labels as (N,)"
        )
    if values.dtype.kind not in "iubUS":
        raise DataError(f"{where}: labels must be whole numbers or strings, got {values.dtype}; convert them")
    if names is None:
        distinct, numbers = np.unique(values, return_inverse=True)
        classes = tuple(value.decode() if isinstance(value, bytes) else str(value) for value in distinct.tolist())
        return classes, numbers.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise DataError(f"{where}: with named classes labels must be whole numbers, got {values.dtype}; convert them")
    numbers = values.astype(np.int64)
    outside = (numbers < 0) | (numbers >= len(names))
    if outside.any():
        row = int(outside.argmax())
        raise DataError(
            f"{where}: a label must be from 0 to {len(names) - 1} ({len(names)} class names), got {numbers[row]} in row {row}; "
            "remove the images without a label, or mend the class names"
        )
    return names, numbers

"""The IDX files of MNIST, Fashion-MNIST and their like (http://yann.lecun.com/exdb/mnist), compressed or not."""

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.arrays import Part, array_source
from nas.data.source import TEST, TRAIN, Progress, Source
from nas.errors import DataError

FILE_NAME = re.compile(r"(?P<set>.*?)(?P<split>train|t10k|test)-(?P<what>images|labels)[-.]idx[13]-ubyte(\.gz)?")
UNSIGNED_BYTES = 0x08


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """The IDX files of a folder by split (`train`, `test`) and content (`images`, `labels`); empty if there are none.

    Raises:
        DataError: files of several data sets lie in one folder.
    """
    files: dict[tuple[str, str], Path] = {}
    sets: set[str] = set()
    for path in sorted(folder.iterdir()):
        if match := FILE_NAME.fullmatch(path.name):
            sets.add(match["set"])
            files[("train" if match["split"] == "train" else "test", match["what"])] = path
    if len(sets) > 1:
        raise DataError(
            f"{folder}: IDX files of one data set are needed, got {', '.join(sorted(sets))}; give each its own folder"
        )
    return files


def idx_source(folder: Path, *, progress: Progress) -> Source:
    """Index a folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and, where there is a test split, `t10k-…`.

    Raises:
        DataError: a file is missing, damaged, or of another type; or images and labels do not match.
    """
    files = idx_files(folder)
    parts: list[Part] = []
    for split, given in (("train", TRAIN), ("test", TEST)):
        images, labels = files.get((split, "images")), files.get((split, "labels"))
        if images is None and labels is None and given == TEST:
            continue
        if images is None or labels is None:
            missing = "images" if images is None else "labels"
            raise DataError(
                f"{folder}: images and labels of the {split} split are needed, its {missing} file is missing; add it"
            )
        parts.append(Part(given, _read(images, dimensions=3), _read(labels, dimensions=1), images.name))
    return array_source(parts, name=folder.resolve().name, kind="idx", progress=progress)


def _read(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The array in an IDX file: two zero bytes, the type, the number of dimensions, the dimensions (big-endian), the values."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); it may be damaged or cut short: fetch it again") from error
    expected = bytes([0, 0, UNSIGNED_BYTES, dimensions])
    if content[:4] != expected:
        raise DataError(
            f"{path}: must begin with the IDX magic {expected.hex()}, got {content[:4].hex()}; is it another kind of file?"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{path}: cut short within its header ({len(content)} bytes); fetch it again")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    values = np.frombuffer(content, dtype=np.uint8, offset=start)
    if values.size != np.prod(shape, dtype=object):
        raise DataError(
            f"{path}: its header tells of {np.prod(shape, dtype=object)} bytes, got {values.size}; fetch it again"
        )
    return values.reshape(shape)

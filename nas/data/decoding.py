"""All images of a selection, decoded into files: on all cores, and never all in memory."""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from nas.data.pixels import decode, look, natural_resolution
from nas.data.source import Encoded, Progress, Rows, Source
from nas.errors import DataError

IMAGES_PER_TASK = 16  # small images decode in less time than it takes to hand one to another thread
TASKS_AT_A_TIME = 16

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Selection:
    """What is to be decoded, and to what.

    Attributes:
        source: where the images are.
        rows: (M,), which of them, in the order in which they are wanted.
        resolution: height and width, pixels; None: the images' own.
        channels: 1 or 3; None: the images' own.
    """

    source: Source
    rows: Rows
    resolution: int | None
    channels: int | None


@dataclass(frozen=True)
class _Image:
    """One decoded image: its pixels, their hash, and their sums and sums of squares by channel."""

    pixels: bytes
    digest: bytes
    sums: tuple[list[int], list[int]]


def decode_into(folder: Path, selection: Selection, *, progress: Progress) -> dict[int, str]:
    """Decode a selection into `images.npy` (uint8, (M, R, R, C)), `digests.npy` (S32, (M,)) and `sums.npy` (int64, (M, 2, C)).

    The sums are, per image and channel, of the pixels and of their squares: mean and deviation of any split follow from them.
    Images are written one by one with plain writes: on a full disk these raise, where a mapped file would kill the process.

    Returns:
        Damaged images: place in the selection and reason. Their pixels stay black, their sums 0, their digests empty.

    Raises:
        DataError: not one image can be read.
        OSError: the files cannot be written.
    """
    source, rows = selection.source, selection.rows
    place = {row: index for index, row in enumerate(rows.tolist())}
    skipped: dict[int, str] = {}
    with ThreadPoolExecutor() as pool, (folder / "images.npy").open("wb") as file:
        resolution, channels = _shape(pool, selection, progress)
        shape = (len(rows), resolution, resolution, channels)
        digests = np.zeros(len(rows), dtype="S32")
        sums = np.zeros((len(rows), 2, channels), dtype=np.int64)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        start, size = file.tell(), resolution * resolution * channels

        def attempt(encoded: Encoded) -> _Image | str:
            return _attempt(encoded, resolution, channels)

        for row, image in _mapped(pool, attempt, source.read(rows), _counted(progress, "decoding", len(rows))):
            index = place[row]
            if isinstance(image, str):
                skipped[index] = image
                continue
            file.seek(start + index * size)
            file.write(image.pixels)
            digests[index] = image.digest
            sums[index] = image.sums
        file.truncate(start + len(rows) * size)
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / "digests.npy", digests)
    np.save(folder / "sums.npy", sums)
    return dict(sorted(skipped.items()))


def _shape(pool: ThreadPoolExecutor, selection: Selection, progress: Progress) -> tuple[int, int]:
    """Resolution and channels; what was not asked for is taken from the images, one channel if all are grey."""
    if selection.resolution is not None and selection.channels is not None:
        return selection.resolution, selection.channels
    source, rows = selection.source, selection.rows
    looks = [
        seen for _, seen in _mapped(pool, look, source.read(rows), _counted(progress, "looking", len(rows))) if seen
    ]
    if not looks:
        raise DataError(
            f"{source.name}: images that can be read are needed, got {len(rows)} that cannot (such as "
            f"{source.where(int(rows[0]))}); are they damaged, or of another format?"
        )
    return (
        selection.resolution or natural_resolution([seen.side_px for seen in looks]),
        selection.channels or (1 if all(seen.grey for seen in looks) else 3),
    )


def _attempt(encoded: Encoded, resolution: int, channels: int) -> _Image | str:
    """The decoded image, or why there is none."""
    try:
        pixels = decode(encoded, resolution=resolution, channels=channels)
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        return " ".join(str(error).split()) or type(error).__name__
    content = pixels.tobytes()
    wide = pixels.reshape(-1, channels).astype(np.int64)
    return _Image(
        pixels=content,
        digest=hashlib.blake2b(content, digest_size=16).hexdigest().encode(),
        sums=(
            wide.sum(axis=0).tolist(),
            (wide.T @ wide).diagonal().tolist(),
        ),  # numpy's quickest exact sum of squares here
    )


def _mapped(
    pool: ThreadPoolExecutor,
    function: Callable[[Encoded], T],
    items: Iterator[tuple[int, Encoded]],
    done: Callable[[int], None],
) -> Iterator[tuple[int, T]]:
    """`function` of every item (Pillow lets other threads run meanwhile), a bounded number of items in memory at a time."""

    def task(chunk: list[tuple[int, Encoded]]) -> list[tuple[int, T]]:
        return [(row, function(encoded)) for row, encoded in chunk]

    while chunks := [
        chunk for _ in range(TASKS_AT_A_TIME) if (chunk := list(itertools.islice(items, IMAGES_PER_TASK)))
    ]:
        for results in pool.map(task, chunks):
            yield from results
            done(len(results))


def _counted(progress: Progress, stage: str, total: int) -> Callable[[int], None]:
    """Tells `progress` of the sum of what it is told."""
    sofar = 0

    def done(count: int) -> None:
        nonlocal sofar
        sofar += count
        progress(stage, sofar, total)

    return done

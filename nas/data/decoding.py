"""All images of a source, decoded into files: on all cores, and never all in memory."""

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
from nas.data.source import Encoded, Progress, Source
from nas.errors import DataError

IMAGES_PER_TASK = 16  # small images decode in less time than it takes to hand one to another thread
TASKS_AT_A_TIME = 16

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be decoded, and to what size.

    Attributes:
        source: the images, all of which are wanted.
        resolution: height and width, pixels; None: the images' own.
        channels: 1 or 3; None: the images' own.
    """

    source: Source
    resolution: int | None
    channels: int | None


@dataclass(frozen=True)
class _Image:
    """One decoded image: its pixels, their hash, and their sums and sums of squares by channel."""

    pixels: bytes
    digest: bytes
    sums: tuple[list[int], list[int]]


def decode_into(folder: Path, request: Request, *, progress: Progress) -> dict[int, str]:
    """Decode M images into `images.npy` (uint8, (M, R, R, C)), `digests.npy` (S32, (M,)) and `sums.npy` (int64, (M, 2, C)).

    The sums are, per image and channel, of the pixels and of their squares: mean and deviation of any split follow from them.
    Images are written one by one with plain writes: on a full disk these raise, where a mapped file would kill the process.

    Returns:
        Damaged images: row and reason. Their pixels stay black, their sums 0, their digests empty.

    Raises:
        DataError: not one image can be read.
        OSError: the files cannot be written.
    """
    source, count = request.source, len(request.source)
    skipped: dict[int, str] = {}
    with ThreadPoolExecutor() as pool, (folder / "images.npy").open("wb") as file:
        resolution, channels = _shape(pool, request, progress)
        shape = (count, resolution, resolution, channels)
        digests = np.zeros(count, dtype="S32")
        sums = np.zeros((count, 2, channels), dtype=np.int64)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        start, size = file.tell(), resolution * resolution * channels

        def attempt(encoded: Encoded) -> _Image | str:
            return _attempt(encoded, resolution, channels)

        for row, image in _mapped(pool, attempt, source, progress, "decoding"):
            if isinstance(image, str):
                skipped[row] = image
                continue
            file.seek(start + row * size)
            file.write(image.pixels)
            digests[row] = image.digest
            sums[row] = image.sums
        file.truncate(start + count * size)
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / "digests.npy", digests)
    np.save(folder / "sums.npy", sums)
    return dict(sorted(skipped.items()))


def _shape(pool: ThreadPoolExecutor, request: Request, progress: Progress) -> tuple[int, int]:
    """Resolution and channels; what was not asked for is taken from the images, one channel if all are grey."""
    if request.resolution is not None and request.channels is not None:
        return request.resolution, request.channels
    looks = [seen for _, seen in _mapped(pool, look, request.source, progress, "looking") if seen]
    if not looks:
        raise DataError(
            f"{request.source.name}: images that can be read are needed, got {len(request.source)} that cannot (such as "
            f"{request.source.where(0)}); are they damaged, or of another format?"
        )
    return (
        request.resolution or natural_resolution([seen.side_px for seen in looks]),
        request.channels or (1 if all(seen.grey for seen in looks) else 3),
    )


def _attempt(encoded: Encoded, resolution: int, channels: int) -> _Image | str:
    """The decoded image, or why there is none."""
    try:
        pixels = decode(encoded, resolution=resolution, channels=channels)
    except MemoryError:  # no fault of the image
        raise
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
    pool: ThreadPoolExecutor, function: Callable[[Encoded], T], source: Source, progress: Progress, stage: str
) -> Iterator[tuple[int, T]]:
    """`function` of every image (Pillow lets other threads run meanwhile), with a bounded number in memory at a time."""

    def task(chunk: list[tuple[int, Encoded]]) -> list[tuple[int, T]]:
        return [(row, function(encoded)) for row, encoded in chunk]

    done, images = 0, source.read(np.arange(len(source)))
    while chunks := [
        chunk for _ in range(TASKS_AT_A_TIME) if (chunk := list(itertools.islice(images, IMAGES_PER_TASK)))
    ]:
        for results in pool.map(task, chunks):
            yield from results
            done += len(results)
            progress(stage, done, len(source))

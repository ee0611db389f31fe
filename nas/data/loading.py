"""From `--data` to images in memory."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nas.data.arrays import digits_source, npz_source
from nas.data.cache import Decoded, decoded
from nas.data.dataset import Data, Origin, Split
from nas.data.decoding import Request
from nas.data.folder import folder_source
from nas.data.hub import hub_source
from nas.data.idx import idx_files, idx_source
from nas.data.mapping import mapped_images, memory_bytes
from nas.data.parquet import parquet_files, parquet_source
from nas.data.pixels import whole
from nas.data.shards import shard_files, shard_source
from nas.data.source import Progress, Rows, Source
from nas.data.splitting import Division, divide, sample
from nas.errors import DataError
from searchspace.files import cache_folder

VALIDATION_SHARE, TEST_SHARE = 0.1, 0.15
"""Of every class, where the source gives no such split."""
MEMORY_SHARE = 0.4
"""Decoded images that take more of the memory that may be used than this stay in their file, which is mapped."""
IMBALANCE_TO_TELL = 3
"""From so many times as many images of the commonest class as of the rarest on, the user is told."""


def load_data(
    source: str,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    validation: float = VALIDATION_SHARE,
    test: float = TEST_SHARE,
    strict: bool = False,
    limit: int | None = None,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Data:
    """Read labelled images, decode them once, and divide them into training, validation and test.

    The division depends on the images' content and the seed, not on paths, order or resolution. Splits that the source
    gives are kept; what it lacks is taken out of its training split, by class.

    Args:
        source: a folder of images (`CLASS/*.png`, or `train/CLASS/*.png` and `test/CLASS/*.png`), a Parquet file or a folder
            of them as Hugging Face lays them out, tar shards as WebDataset does, an `.npz` archive, a folder with the IDX files
            of MNIST, `digits` (scikit-learn's), or `hf:NAME` from the Hugging Face hub.
        resolution: height and width that images are brought to, pixels, at least 1: the shorter side is resized, the centre
            cut out. None: the images' own if all are alike, else a usual one near their median; at most 224.
        channels: 1 or 3; None: 1 if every image is grey, else 3.
        seed: draws the splits that the source does not give.
        validation: fraction of every class for validation, where the source gives none; between 0 and 1.
        test: fraction of every class for test, where the source gives none; between 0 and 1.
        strict: refuse damaged images instead of leaving them out.
        limit: use so many images only, with classes and splits in their shares.
        cache: folder for decoded images; None: `$XDG_CACHE_HOME/pocketnas/data`.
        progress: told how far reading, looking (at headers) and decoding are.

    Raises:
        DataError: the images or labels cannot be used as they are; the message says what to do.
    """
    _check(resolution, channels, validation, test, limit)
    report = progress or _silent
    found = _index(source, report)
    images = sample(found, limit)
    about = f"{source} (limited to {_count(len(images))})" if len(images) < len(found) else source

    def divided(rows: Rows, about: str) -> Division:
        try:
            return divide(images, rows, seed=seed, validation=validation, test=test)
        except DataError as error:
            raise DataError(f"{about}: {error}") from error

    everything = np.arange(len(images))
    division = divided(
        everything, about
    )  # what is wrong with classes and splits is said before decoding, which may take long
    pictures, notes = decoded(
        Request(images, resolution, channels), folder=cache or cache_folder("data"), progress=report
    )
    skipped = tuple(f"{images.where(row)}: {reason}" for row, reason in pictures.skipped.items())
    if skipped:
        _check_skipped(source, skipped, len(images), strict=strict)
        good = np.setdiff1d(everything, list(pictures.skipped))
        division = divided(good, f"{about}, {_count(len(skipped))} damaged and left out")
    return _assemble(images, pictures, division, skipped=skipped, notes=notes)


def whole_test_images(source: str, *, channels: int, seed: int, images: int) -> list[NDArray[np.uint8]]:
    """Some images of the test split at their own size, uint8 (H, W, channels): as what takes them by itself meets them.

    Args:
        source: as `load_data` takes it.
        channels: 1 or 3.
        seed: that the splits were drawn by.
        images: how many at most; damaged ones are left out.

    Raises:
        DataError: as `load_data`.
    """
    found = sample(_index(source, _silent), None)
    rows = divide(found, np.arange(len(found)), seed=seed, validation=VALIDATION_SHARE, test=TEST_SHARE).test
    spread = np.unique(np.linspace(0, len(rows) - 1, images).astype(np.int64))
    pictures = []
    for _, encoded in found.read(rows[spread]):
        with contextlib.suppress(Exception):  # whatever Pillow meets in a damaged image
            pictures.append(whole(encoded, channels=channels))
    return pictures


def read_source(source: str, *, progress: Progress) -> Source:
    """Find out what kind of data `source` names, and index it.

    Raises:
        DataError: there is nothing of that name, or it is of no known kind.
    """
    if source == "digits":
        return digits_source(progress=progress)
    if source.startswith("hf:"):
        return hub_source(source.removeprefix("hf:"), progress=progress)
    path = Path(source).expanduser()
    if path.is_dir():
        if idx_files(path):
            return idx_source(path, progress=progress)
        read = parquet_source if parquet_files(path) else shard_source if shard_files(path) else folder_source
        return read(path, progress=progress)
    if not path.exists():
        raise DataError(
            f"{source}: there is no such file or folder; give a path, `digits`, or `hf:NAME` for the Hugging Face hub"
        )
    if path.suffix == ".tar":
        return shard_source(path, progress=progress)
    if path.suffix == ".npz":
        return npz_source(path, progress=progress)
    if path.suffix == ".parquet":
        return parquet_source(path, progress=progress)
    raise DataError(f"{source}: a folder, a .parquet file or an .npz file is needed, got a file of another kind")


def _index(source: str, progress: Progress) -> Source:
    try:
        return read_source(source, progress=progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{source}: cannot be read ({reason}); mend its permissions, or check the disk") from error


def _check(resolution: int | None, channels: int | None, validation: float, test: float, limit: int | None) -> None:
    if resolution is not None and resolution < 1:
        raise DataError(f"the resolution must be at least 1 pixel, got {resolution}")
    if channels not in (None, 1, 3):
        raise DataError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 1):
        raise DataError(
            f"fractions for validation and test must be above 0 and leave images to train on, got {validation:g} and {test:g}"
        )
    if limit is not None and limit < 1:
        raise DataError(f"the limit must be at least 1 image, got {limit}")


def _check_skipped(source: str, skipped: tuple[str, ...], images: int, *, strict: bool) -> None:
    if len(skipped) == images:
        raise DataError(
            f"{source}: none of the {_count(images)} can be decoded, for instance {skipped[0]}; are they damaged?"
        )
    if strict:
        raise DataError(
            f"{source}: every image must be readable, got {_count(len(skipped))} damaged: {skipped[0]}; mend or remove it"
        )


def _assemble(
    source: Source, pictures: Decoded, division: Division, *, skipped: tuple[str, ...], notes: tuple[str, ...]
) -> Data:
    resolution, _, channels = pictures.shape
    mean, std = _statistics(pictures.sums[division.train], resolution * resolution)
    train, validation, test = _splits(pictures, source.labels, division)
    return Data(
        name=source.name,
        kind=source.kind,
        fingerprint=_fingerprint(source, pictures, division),
        classes=source.classes,
        resolution=resolution,
        channels=channels,
        mean=mean,
        std=std,
        train=train,
        validation=validation,
        test=test,
        class_counts=tuple(np.bincount(source.labels[division.train], minlength=len(source.classes)).tolist()),
        skipped=skipped,
        notes=(*source.notes, *notes, *_remarks(source, division)),
    )


def _splits(pictures: Decoded, labels: Rows, division: Division) -> Iterator[Split]:
    """Training, validation and test: copied into memory, or left in the mapped file where all of them would not fit."""
    everything = mapped_images(pictures.file)
    mapped = everything.nbytes > MEMORY_SHARE * memory_bytes()
    for rows in division:
        places, chosen = torch.from_numpy(rows), torch.from_numpy(labels[rows])
        origin = Origin(pictures.file, places)
        if mapped:
            yield Split(everything, chosen, places, origin)
        else:
            yield Split(everything.permute(0, 2, 3, 1)[places].permute(0, 3, 1, 2), chosen, origin=origin)


def _statistics(sums: NDArray[np.int64], pixels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, from exact sums of whole numbers."""
    first, second = sums.sum(axis=0) / (len(sums) * pixels)
    std = np.sqrt(np.maximum(second - first * first, 1.0))
    return tuple((first / 255).tolist()), tuple((std / 255).tolist())


def _fingerprint(source: Source, pictures: Decoded, division: Division) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([source.classes, pictures.shape]).encode())
    for rows in division:
        digest.update(pictures.digests[rows].tobytes() + source.labels[rows].astype("<i8").tobytes() + b"|")
    return digest.hexdigest()


def _remarks(source: Source, division: Division) -> list[str]:
    """What is odd about the division, but not wrong."""
    remarks = []
    trained = source.digests[division.train]
    for split, rows in (("validation", division.validation), ("test", division.test)):
        if copies := int(np.isin(source.digests[rows], trained).sum()):
            remarks.append(f"{_count(copies)} of the {split} split are in the training split too, byte for byte")
    contents, which = np.unique(source.digests, return_inverse=True)
    if contradictory := len(np.unique(which * len(source.classes) + source.labels)) - len(contents):
        remarks.append(f"{_count(contradictory)} are in several classes, byte for byte: labels contradict each other")
    counts = np.bincount(source.labels[division.train], minlength=len(source.classes))
    rarest, commonest = int(np.where(counts, counts, counts.max()).argmin()), int(counts.argmax())
    if counts[commonest] >= IMBALANCE_TO_TELL * counts[rarest]:
        remarks.append(
            f"classes are unbalanced: {_count(counts[commonest])} of {source.classes[commonest]!r} to train on, "
            f"{_count(counts[rarest])} of {source.classes[rarest]!r}; `balance: true` in a recipe lets classes count alike"
        )
    absent = np.flatnonzero(counts == 0)
    if len(absent):
        remarks.append(f"no training image has the class {', '.join(repr(source.classes[label]) for label in absent)}")
    return remarks


def _count(images: int) -> str:
    return f"{images:,} image{'' if images == 1 else 's'}"


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""

"""Images in tar shards as WebDataset lays them out: files of one name before the first dot are one sample.

    train-000000.tar:  0001.jpg 0001.cls  0002.jpg 0002.json …

The label is in `.cls` (a whole number or a class name) or in `.json` (`label`, `cls` or `class`). Shards are not unpacked: images
are read where they lie in them, and only the decoded ones, at the resolution that is asked for, are kept.
"""

import contextlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from nas.data.pixels import SUFFIXES
from nas.data.source import (
    SPLIT_NAMES,
    TRAIN,
    Encoded,
    Progress,
    Rows,
    Source,
    content_digest,
    digest_array,
    number_labels,
    split_of,
)
from nas.errors import DataError

LABEL_KEYS = ("label", "cls", "class")


@dataclass(frozen=True)
class _Sample:
    """Where an image lies, and its label as it is written."""

    shard: Path
    key: str
    start: int
    size: int
    label: str


def shard_files(folder: Path) -> list[Path]:
    """Tar files in a folder and below, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*.tar")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def shard_source(path: Path, *, progress: Progress) -> Source:
    """Index a tar shard, or all of a folder; the split is in a shard's name (`train-000000.tar`) or its folder's.

    Raises:
        DataError: a shard is damaged or compressed, or a sample lacks its image or its label.
    """
    files = [path] if path.is_file() else shard_files(path)
    named = {file: split_of(file) for file in files}
    known = [file for file in files if named[file] in SPLIT_NAMES]
    if not any(SPLIT_NAMES[named[file]] == TRAIN for file in known):
        known, named = files, dict.fromkeys(files, "train")  # no name tells a training split: one pool, to be divided
    samples: list[_Sample] = []
    digests: list[bytes] = []
    for done, file in enumerate(known, start=1):
        found = _samples(file)
        samples += found
        with file.open("rb") as shard:
            digests += [content_digest(_bytes(shard, sample)) for sample in found]
        progress("reading", done, len(known))
    numbers = all(sample.label.lstrip("-").isdecimal() for sample in samples)
    labels = np.array([int(sample.label) if numbers else sample.label for sample in samples])
    classes, rows = number_labels(labels, names=None, where=str(path))

    def read(wanted: Rows) -> Iterator[tuple[int, Encoded]]:
        shard, opened = None, contextlib.ExitStack()
        with opened:
            for row in wanted.tolist():
                if samples[row].shard != shard:
                    opened.close()
                    shard = samples[row].shard
                    file = opened.enter_context(shard.open("rb"))
                yield row, _bytes(file, samples[row])

    return Source(
        name=path.resolve().stem if path.is_file() else path.resolve().name,
        kind="shards",
        classes=classes,
        labels=rows,
        digests=digest_array(digests),
        given=np.array([SPLIT_NAMES[named[sample.shard]] for sample in samples], dtype=np.int8),
        read=read,
        where=lambda row: f"{samples[row].shard.name} {samples[row].key}",
        notes=tuple(
            f"{file.name} was left out: its name tells of no known split" for file in files if file not in known
        ),
    )


def _samples(file: Path) -> list[_Sample]:
    """The samples of a shard, in its order."""
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                stem, _, ending = name.name.partition(".")
                if not member.isfile() or not stem:
                    continue
                key, suffix = str(name.with_name(stem)), f".{ending.lower()}"
                if suffix in SUFFIXES:
                    images[key] = (member.offset_data, member.size)
                elif suffix in (".cls", ".json"):
                    content = archive.extractfile(member)
                    label = _label(content.read() if content else b"", suffix)
                    if label is not None:
                        labels[key] = label
    except (tarfile.TarError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{file}: cannot be read as an uncompressed tar shard ({reason}); unpack or mend it") from error
    for one, other, what in ((images, labels, "label"), (labels, images, "image")):
        if missing := [key for key in one if key not in other]:
            raise DataError(
                f"{file}: every sample needs an image and a label (.cls, or .json with {', '.join(LABEL_KEYS)}), "
                f"{missing[0]} has no {what}; add it, or remove the sample"
            )
    return [_Sample(file, key, *place, labels[key]) for key, place in images.items()]


def _label(content: bytes, suffix: str) -> str | None:
    """The label in a file of a sample; None where it tells of none."""
    if suffix == ".cls":
        return content.decode().strip() or None
    told = json.loads(content)
    return next((str(told[key]) for key in LABEL_KEYS if key in told), None) if isinstance(told, dict) else None


def _bytes(shard: BinaryIO, sample: _Sample) -> bytes:
    shard.seek(sample.start)
    return shard.read(sample.size)

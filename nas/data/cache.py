"""Decoded images on disk: found by content, checked when opened, replaced when damaged."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from nas.data.decoding import Request, decode_into
from nas.data.pixels import DECODER
from nas.data.source import Progress
from nas.errors import DataError

MANIFEST = "manifest.json"
FILES = ("images.npy", "digests.npy", "sums.npy")


@dataclass(frozen=True, eq=False)
class Decoded:
    """M decoded images.

    Attributes:
        file: of the images, uint8, (M, R, R, C), as numpy writes it.
        shape: of an image, (R, R, C).
        digests: (M,), hashes of the decoded pixels.
        sums: int64, (M, 2, C): per image and channel the sum of the pixels, and of their squares.
        skipped: damaged images: row and reason.
    """

    file: Path
    shape: tuple[int, int, int]
    digests: NDArray[np.bytes_]
    sums: NDArray[np.int64]
    skipped: dict[int, str]


class _DamagedError(Exception):
    """A cache entry is not what was written; the text says which file and why."""


def decoded(request: Request, *, folder: Path, progress: Progress) -> tuple[Decoded, tuple[str, ...]]:
    """Decode what is requested, or find it decoded; and what the user should know about that.

    An entry is found by the images' content, the resolution, the channels and the decoder. It is written under a lock to a
    folder beside it, then renamed: runs that want the same entry wait for the first, and a killed one leaves nothing that counts.

    Raises:
        DataError: nothing can be decoded, or the cache cannot be written.
    """
    entry = folder / _key(request)
    notes: tuple[str, ...] = ()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_name(f"{entry.name}.lock")):
            if entry.exists():
                try:
                    return _open(entry), notes
                except _DamagedError as damage:
                    notes = (f"the decoded copy {entry} was damaged ({damage}) and has been made again",)
            _replace(entry, request, progress)
            return _open(entry), notes
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{folder}: decoded images cannot be kept there ({reason}); free it, or name another cache folder"
        ) from error
    except _DamagedError as damage:
        raise DataError(
            f"{entry}: was damaged while it was written ({damage}); check the disk, or name another cache folder"
        ) from damage


def _key(request: Request) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([DECODER, request.resolution, request.channels]).encode())
    digest.update(request.source.digests.tobytes())
    return digest.hexdigest()


def _replace(entry: Path, request: Request, progress: Progress) -> None:
    partial = entry.with_name(f"{entry.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    try:
        partial.mkdir()
        skipped = decode_into(partial, request, progress=progress)
        manifest = {
            "name": request.source.name,
            "decoder": DECODER,
            "skipped": {str(index): reason for index, reason in skipped.items()},
            "sha256": {name: _sha256(partial / name) for name in FILES},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if entry.exists():
            shutil.rmtree(entry)
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _open(entry: Path) -> Decoded:
    """Open an entry after comparing every file with its checksum."""
    try:
        manifest: dict[str, Any] = json.loads((entry / MANIFEST).read_bytes())
        for name in FILES:
            if _sha256(entry / name) != manifest["sha256"][name]:
                raise _DamagedError(f"{name} does not have its checksum")
        _, rows, columns, channels = np.load(entry / "images.npy", mmap_mode="r", allow_pickle=False).shape
        return Decoded(
            file=entry / "images.npy",
            shape=(rows, columns, channels),
            digests=np.load(entry / "digests.npy", allow_pickle=False),
            sums=np.load(entry / "sums.npy", allow_pickle=False),
            skipped={int(index): str(reason) for index, reason in manifest["skipped"].items()},
        )
    except FileNotFoundError as error:
        raise _DamagedError(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{MANIFEST} cannot be read: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

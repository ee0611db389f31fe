"""Images in folders: one folder a class, possibly inside folders `train`, `validation` and `test`."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nas.data.pixels import SUFFIXES
from nas.data.source import SPLIT_NAMES, TRAIN, Encoded, Progress, Rows, Source, content_digest, digest_array
from nas.errors import DataError


def folder_source(root: Path, *, progress: Progress) -> Source:
    """Index an image folder: `root/CLASS/*.png` or `root/train/CLASS/*.png` (and `test`, `validation`, `val`, `valid`).

    Hidden files and files that are not images are ignored, as are class folders without an image (with a note).

    Raises:
        DataError: there is no image, images lie outside of a class folder, or a file cannot be read.
    """
    files: list[Path] = []
    names: list[str] = []
    given: list[int] = []
    empty: list[Path] = []
    for code, parent in _splits(root):
        for folder in _folders(parent):
            found = _images(folder)
            files += found
            names += [folder.name] * len(found)
            given += [code] * len(found)
            if not found:
                empty.append(folder)
    if not files:
        raise DataError(
            f"{root}: a folder with one sub-folder of images a class is needed, found no image in a sub-folder; "
            f"put images ({', '.join(sorted(suffix[1:] for suffix in SUFFIXES))}) into {root.name}/CLASS/"
        )
    classes, labels = np.unique(np.array(names), return_inverse=True)

    def read(rows: Rows) -> Iterator[tuple[int, Encoded]]:
        for row in rows.tolist():
            yield row, _read(files[row])

    return Source(
        name=root.resolve().name,
        kind="folder",
        classes=tuple(classes.tolist()),
        labels=labels.astype(np.int64),
        digests=digest_array(_digests(files, progress)),
        given=np.array(given, dtype=np.int8),
        read=read,
        where=lambda row: str(files[row].relative_to(root)),
        notes=tuple(f"{folder.relative_to(root)} holds no image and is not taken as a class" for folder in empty),
    )


def _splits(root: Path) -> list[tuple[int, Path]]:
    """Folders that hold class folders, with the split that each stands for."""
    named = [
        (SPLIT_NAMES[folder.name.lower()], folder) for folder in _folders(root) if folder.name.lower() in SPLIT_NAMES
    ]
    return named if any(code == TRAIN for code, _ in named) else [(TRAIN, root)]


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """Image files in a folder and the folders below it, without hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def _digests(files: list[Path], progress: Progress) -> Iterator[bytes]:
    with ThreadPoolExecutor() as pool:
        for done, digest in enumerate(pool.map(lambda path: content_digest(_read(path)), files), start=1):
            progress("reading", done, len(files))
            yield digest


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); mend its permissions or remove it") from error

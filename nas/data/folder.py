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

    Hidden files and files that are not images are ignored; class folders without an image, and images outside of one, are left
    out with a note.

    Raises:
        DataError: there is no image in a class folder, folders are classes as well as splits, or a file cannot be read.
    """
    files: list[Path] = []
    names: list[str] = []
    given: list[int] = []
    empty: list[Path] = []
    splits = _splits(root)
    for code, parent in splits:
        for folder in _folders(parent):
            found = sorted(_images(folder))
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
        notes=(
            *(f"{folder.relative_to(root)} holds no image and is not taken as a class" for folder in empty),
            *_remarks(root, [parent for _, parent in splits]),
        ),
    )


def _splits(root: Path) -> list[tuple[int, Path]]:
    """Folders that hold class folders, with the split that each stands for.

    A folder stands for a split by its name, and because its images lie in folders in it: a class may be called `train`, too.
    """
    holding = [folder for folder in _folders(root) if any(_images(folder))]
    named = [
        folder
        for folder in holding
        if folder.name.lower() in SPLIT_NAMES and any(any(_images(inner)) for inner in _folders(folder))
    ]
    if not named:
        return [(TRAIN, root)]
    others = [folder.name for folder in holding if folder.name.lower() not in SPLIT_NAMES]
    if others:
        split, beside = repr(named[0].name), ", ".join(map(repr, others[:3])) + " …" * (len(others) > 3)
        raise DataError(
            f"{root}: sub-folders must all be splits or all be classes, got {split}, which holds folders of images, beside "
            f"{beside}; put the classes into train/, or rename {split}"
        )
    splits = [(SPLIT_NAMES[folder.name.lower()], folder) for folder in named]
    if all(code != TRAIN for code, _ in splits):
        names = ", ".join(folder.name for folder in named)
        raise DataError(
            f"{root}: a folder train with one sub-folder of images a class is needed, got only {names}; add it"
        )
    return splits


def _remarks(root: Path, parents: list[Path]) -> list[str]:
    """Notes on folders that are classes though they are called as splits, and on images that lie in no class folder."""
    folders, divided = _folders(root), parents != [root]
    remarks = [
        f"{folder.name} is taken as a class, not as a split: its images do not lie in class folders"
        for folder in folders
        if not divided and folder.name.lower() in SPLIT_NAMES
    ]
    stray = sorted(path for folder in (root, *folders * divided) for path in folder.iterdir() if _is_image(path))
    if stray:
        count = "1 image lies" if len(stray) == 1 else f"{len(stray):,} images lie"
        remarks.append(f"{count} outside of a class folder, left out: {stray[0].relative_to(root)}")
    return remarks


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> Iterator[Path]:
    """Image files in a folder and the folders below it, without hidden ones."""
    return (
        path
        for path in folder.rglob("*")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and _is_image(path)
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


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

"""Where files to ship may be written."""

import os
from pathlib import Path

from nas.errors import ExportError


def check_place(path: Path, *, folder: bool) -> None:
    """Whether a file (or folder) can be written there, its card beside it, is known before anything takes time.

    Raises:
        ExportError: it cannot.
    """
    whole = path.resolve()
    if not whole.name or (whole.exists() and not (whole.is_dir() if folder else whole.is_file())):
        needed, found = "folder" if folder else "file", "a folder" if whole.is_dir() else "something else"
        raise ExportError(f"{path}: the name of a {needed} is needed, there lies {found} already; give another -o")
    nearest = whole.parent
    while not nearest.exists():
        nearest = nearest.parent
    for place in (nearest, whole) if folder and whole.exists() else (nearest,):
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise ExportError(f"{path}: cannot be written: {place} must be a folder that can be written to")

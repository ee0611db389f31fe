"""Reading plain data from text, and writing files so that a killed writer never leaves half of one."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from searchspace.errors import NasError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, reading numbers such as 1e-5 as YAML 1.2 does: as numbers, not as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_plain(text: str) -> Any:
    """Plain data (mappings, lists, text, numbers) from JSON or YAML text; nothing in it can be executed.

    Raises:
        NasError: the text is neither JSON nor YAML; the message is the parser's, in one line.
    """
    try:
        return _parse(text)
    except RecursionError:
        raise NasError("not JSON or YAML that can be read: it is nested too deeply") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise NasError(f"not JSON or YAML: {' '.join(str(error).split())}") from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path` under a temporary name, flush it to disk, then rename it to `path`.

    Parent folders are made. Whatever goes wrong (a full disk, a folder in the way), `path` keeps what it held before and
    no temporary file stays.

    Raises:
        NasError: the file cannot be written; the message names the path and the system's reason.
    """
    write_together({path: content})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files as `write_atomically` does, none of them taking its place before all are written.

    Raises:
        NasError: one cannot be written.
    """
    temporary: dict[Path, Path] = {}
    path = Path()
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
            temporary[path] = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary[path].chmod(0o666 & ~_umask())
        for path in files:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for path, written in temporary.items():
            written.replace(path)
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by name, into a folder: a new one appears with all of them; into one that is there as `write_together` does.

    Raises:
        NasError: it cannot be written.
    """
    if path.exists():
        write_together({path / name: content for name, content in files.items()})
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as temporary:
            made = Path(temporary) / path.name
            write_together({made / name: content for name, content in files.items()})
            made.rename(path)
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed") from error


def _umask() -> int:
    """The process's file mode mask (mkstemp makes private files; ours shall be as readable as any other)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def cache_folder(kind: str) -> Path:
    """For what can be made again at any time: `$XDG_CACHE_HOME/pocketnas/KIND`, by default below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pocketnas" / kind

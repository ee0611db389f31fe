"""A place that all machines of a search can reach, for the checkpoints of candidates: a path or an object store, through fsspec.

The folder of a process stays where it computes; what it finishes is copied to the place, and what others finished is fetched
from there. So the next process goes on with a candidate from its last rung, wherever the one before it ran.
"""

import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import StudyError


@dataclass(frozen=True)
class Mirror:
    """Files of one search at a place.

    Attributes:
        url: of a folder, such as ``s3://bucket/search``, ``gs://…``, ``sftp://host/folder`` or ``file:///shared/search``.
    """

    url: str

    def check(self) -> None:
        """Whether the place can be used.

        Raises:
            StudyError: it cannot.
        """
        try:
            files, folder = _opened(self.url)
            files.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise StudyError(
                f"{self.url}: checkpoints cannot go there ({_reason(error)}); check --checkpoints"
            ) from error

    def put(self, path: Path) -> None:
        """Copy a finished file to the place, under its name there only once it is whole.

        Raises:
            StudyError: it cannot be written there.
        """
        try:
            files, folder = _opened(self.url)
            files.makedirs(folder, exist_ok=True)
            whole = f"{folder}/{path.name}"
            part = f"{whole}.{os.getpid()}.part"
            files.put_file(str(path), part)
            files.mv(part, whole)
        except OSError as error:
            raise StudyError(f"{self.url}: {path.name} cannot be written there ({_reason(error)})") from error

    def fetch(self, path: Path) -> bool:
        """Copy a file from the place to `path`, if it is there; returns whether it was.

        Raises:
            StudyError: the place cannot be read.
        """
        files, folder = _opened(self.url)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        part = Path(name)
        try:
            files.get_file(f"{folder}/{path.name}", name)
            part.replace(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StudyError(f"{self.url}: {path.name} cannot be read from there ({_reason(error)})") from error
        finally:
            part.unlink(missing_ok=True)
        return True


@functools.cache
def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the folder's path in it."""
    try:
        import fsspec
    except ImportError:
        raise StudyError(f"{url}: a place for checkpoints needs fsspec: pip install 'pocketnas[places]'") from None
    try:
        files, folder = fsspec.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise StudyError(
            f"{url}: checkpoints must go to a place that fsspec knows ({_reason(error)}); check --checkpoints"
        ) from None
    return files, str(folder).rstrip("/")


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

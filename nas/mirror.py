"""A place that all machines of a search can reach, for its checkpoints: a path or an object store, through fsspec.

The folder of a process stays where it computes; what it finishes is copied to the place, and what others finished is fetched
from there. So the next process goes on with a candidate from its last rung, wherever the one before it ran. A place that does
not answer for a while is waited for, as a database is.
"""

import dataclasses
import errno
import functools
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nas import database
from nas.errors import StudyError
from nas.urls import shown, without_secrets

Result = TypeVar("Result")
_LASTING = (StudyError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What waiting does not help."""
MARK = "search.json"
"""The file that says which search a place belongs to."""


@dataclass(frozen=True)
class Mirror:
    """Files of one search at a place.

    Attributes:
        url: of a folder, such as ``s3://bucket/search``, ``gs://…``, ``sftp://host/folder`` or ``file:///shared/search``.
        on_wait: told once when the place is away and is waited for.
    """

    url: str
    on_wait: Callable[[str], None] | None = field(default=None, compare=False, repr=False)

    def below(self, folder: str) -> "Mirror":
        """A folder at that place."""
        return dataclasses.replace(self, url=f"{self.url.rstrip('/')}/{folder}")

    def check(self) -> None:
        """Write a small file there and remove it again.

        Raises:
            StudyError: the place cannot be used.
        """
        try:
            files, folder = _opened(self.url)
            files.makedirs(folder, exist_ok=True)
            trial = f"{folder}/{secrets.token_hex(8)}.part"
            files.pipe_file(trial, b"pocketnas")
            files.rm_file(trial)
        except StudyError:
            raise
        except Exception as error:  # drivers raise whatever their libraries do
            raise self._told("checkpoints cannot go there", error, remedy="; check --checkpoints") from None

    def claim(self, identity: Mapping[str, Any]) -> None:
        """Mark the place as that of a search: files there are named by architecture, which other searches may have as well.

        Args:
            identity: fingerprints of what is searched.

        Raises:
            StudyError: it is another search's, or it cannot be read and written.
        """
        mark = json.dumps(dict(identity), sort_keys=True).encode()

        def owner(files: Any, folder: str) -> bytes:
            try:
                return bytes(files.cat_file(f"{folder}/{MARK}"))
            except FileNotFoundError:
                _place(files, folder, MARK, lambda part: files.pipe_file(part, mark))
                return mark

        try:
            found = self._patiently(owner)
        except StudyError:
            raise
        except Exception as error:
            raise self._told(f"{MARK} cannot be read or written there", error) from None
        if found != mark:
            raise StudyError(
                f"{shown(self.url)}: holds checkpoints of another search; choose another --checkpoints, such as a folder below it"
            )

    def put(self, path: Path) -> None:
        """Copy a finished file to the place, under its name there only once it is whole.

        Raises:
            StudyError: it cannot be written there.
        """

        def write(files: Any, folder: str) -> None:
            _place(files, folder, path.name, lambda part: files.put_file(str(path), part))

        try:
            self._patiently(write)
        except StudyError:
            raise
        except Exception as error:
            raise self._told(f"{path.name} cannot be written there", error) from None

    def fetch(self, path: Path) -> bool:
        """Copy a file from the place to `path`, if it is there; returns whether it was.

        Raises:
            StudyError: the place cannot be read.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        part = Path(name)
        try:
            self._patiently(lambda files, folder: files.get_file(f"{folder}/{path.name}", name))
            part.replace(path)
        except FileNotFoundError:
            return False
        except StudyError:
            raise
        except Exception as error:
            raise self._told(f"{path.name} cannot be read from there", error) from None
        finally:
            part.unlink(missing_ok=True)
        return True

    def _patiently(self, act: Callable[[Any, str], Result]) -> Result:
        """What `act` gives for the place's file system and folder, tried again for as long as a database would be."""
        deadline, told = time.monotonic() + database.PATIENCE_S, False
        while True:
            try:
                return act(*_opened(self.url))
            except _LASTING:
                raise
            except Exception as error:
                if time.monotonic() > deadline or getattr(error, "errno", None) in _FULL:
                    raise
                if not told and self.on_wait is not None:
                    reason = without_secrets(_reason(error), self.url)
                    self.on_wait(f"waiting for the place for checkpoints, {shown(self.url)}, to answer ({reason})")
                told = True
            _opened.cache_clear()  # its connection may be lost for good
            time.sleep(database.TRY_EVERY_S)

    def _told(self, what: str, error: Exception, *, remedy: str = "") -> StudyError:
        reason = without_secrets(_reason(error), self.url)
        return StudyError(f"{shown(self.url)}: {what} ({reason}){remedy}")


@functools.cache
def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the folder's path in it."""
    try:
        import fsspec
    except ImportError:
        raise StudyError(
            f"{shown(url)}: a place for checkpoints needs fsspec: pip install 'pocketnas[places]'"
        ) from None
    try:
        files, folder = fsspec.url_to_fs(url, skip_instance_cache=True)
    except (ValueError, ImportError) as error:
        reason = without_secrets(_reason(error), url)
        raise StudyError(
            f"{shown(url)}: checkpoints must go to a place that fsspec knows ({reason}); check --checkpoints"
        ) from None
    return files, str(folder).rstrip("/")


def _place(files: Any, folder: str, name: str, write: Callable[[str], object]) -> None:
    """Let `write` write a file, which has its name there only once it is whole."""
    files.makedirs(folder, exist_ok=True)
    part = f"{folder}/{name}.{secrets.token_hex(8)}.part"
    write(part)
    files.mv(part, f"{folder}/{name}")


def _reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

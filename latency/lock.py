"""One device, one user at a time: a lock that all processes of a machine respect and that dies with its holder."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from latency.errors import DeviceError

POLL_S = 0.1


class DeviceLock:
    """The right to use the device called `name`. Taking it again inside is free, so a whole study can hold it.

    It is an advisory lock of the kernel on a file in the user's runtime folder: released when the holder ends, however it
    ends. The file names the holder, for the message of those that wait.
    """

    def __init__(self, name: str) -> None:
        self.path = _folder() / (re.sub(r"[^A-Za-z0-9._-]", "_", name) + ".lock")
        self._depth = 0

    @contextlib.contextmanager
    def held(self, purpose: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Waits for the lock and holds it inside the ``with``.

        Args:
            purpose: what the device is wanted for, shown to others that wait.
            on_wait: called once with the holder's description if the lock is taken.

        Raises:
            DeviceError: the lock's file cannot be made.
        """
        if self._depth:
            with self._deeper():
                yield
            return
        with self._open() as file:
            self._wait(file, on_wait)
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()}, {purpose}")
            file.flush()
            with self._deeper():
                yield

    def holder(self) -> str | None:
        """Who holds the device now, or None."""
        with self._open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _named(file)
        return None

    @contextlib.contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def _open(self) -> IO[str]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return self.path.open("a+", encoding="utf-8")
        except OSError as error:
            raise DeviceError(f"{self.path}: the device's lock cannot be made ({error.strerror})") from error

    def _wait(self, file: IO[str], on_wait: Callable[[str], None] | None) -> None:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told and on_wait is not None:
                    on_wait(_named(file))
                told = True
                time.sleep(POLL_S)
            else:
                return


def _named(file: IO[str]) -> str:
    """The holder as it named itself; it may have died, or not have written yet."""
    file.seek(0)
    return file.read() or "another process"


def _folder() -> Path:
    """The user's runtime folder, or the cache folder where the system has none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME")
    return Path(runtime or Path.home() / ".cache") / "pocketnas" / "devices"

"""One device, one user at a time: a lock that all processes of a machine respect and that dies with its holder.

Measuring holds it alone. What merely computes on the machine, such as training, shares it with its like and lets whoever wants
to measure go first: it asks between two steps and stands still until the measuring is over.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from latency.errors import DeviceBusy, DeviceError
from latency.holder import open_lock

FOLDER = "/tmp/pocketnas-devices"
VARIABLE = "POCKETNAS_LOCKS"  # of the environment: another folder, for who wants not to take turns with the rest of the machine
POLL_S = 0.1


class DeviceLock:
    """The right to use the device called `name`. Taking it again inside is free, so a whole study can hold it.

    It is an advisory lock of the kernel on a file in `FOLDER`, one and the same for all users of the machine and all their
    sessions: released when the holder ends, however it ends. The file names the holder, for the message of those that wait.
    """

    def __init__(self, name: str) -> None:
        self.path = _folder() / (re.sub(r"[^A-Za-z0-9._-]", "_", name) + ".lock")
        self._queue = self.path.with_suffix(".queue")  # held by whoever waits for the lock or has it alone
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
        with _open(self.path) as file, _open(self._queue) as queue:
            tell = _once(on_wait)
            for each in (queue, file):
                _wait(each, fcntl.LOCK_EX, tell)
                _name(each, purpose)
            with self._deeper():
                yield

    @contextlib.contextmanager
    def shared(self, purpose: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[Callable[[], None]]:
        """Computes beside others that share the lock, and never beside one that holds it.

        Args:
            purpose: what is computed, shown to those that wait.
            on_wait: called with the holder's description whenever one must wait.

        Yields:
            A function to call between two steps: whoever waits for the device has it before that call returns.

        Raises:
            DeviceError: the lock's file cannot be made.
        """
        with _open(self.path) as file, _open(self._queue) as queue:

            def enter() -> None:
                tell = _once(on_wait)
                _wait(queue, fcntl.LOCK_SH, tell)
                _wait(file, fcntl.LOCK_SH, tell)
                fcntl.flock(queue, fcntl.LOCK_UN)
                _name(file, purpose)

            def give_way() -> None:
                try:
                    fcntl.flock(queue, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    fcntl.flock(file, fcntl.LOCK_UN)
                    enter()
                else:
                    fcntl.flock(queue, fcntl.LOCK_UN)

            enter()
            yield give_way

    def holder(self) -> str | None:
        """Who holds the device now, or None."""
        with _open(self.path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _named(file) or "another process"
        return None

    @contextlib.contextmanager
    def _deeper(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


def unless_taken(name: str) -> Callable[[str], None]:
    """What to give as `on_wait` where one does not want to wait for the device `name`: it raises `DeviceBusy`."""

    def refuse(what: str) -> None:
        raise DeviceBusy(f"{name} must be waited for: {what}")

    return refuse


@contextlib.contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    """A lock's file; closing it gives the lock back, also where a child process has inherited it."""
    try:
        _make_folder(path.parent)
        descriptor = open_lock(str(path))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is no plain file")
    except OSError as error:
        raise DeviceError(
            f"{path}: the device's lock cannot be made ({error.strerror}): mend that, or set {VARIABLE} to a folder of yours, "
            "where you take turns with yourself only"
        ) from error
    writable = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    with open(descriptor, "r+" if writable else "r", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        try:
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _make_folder(path: Path) -> None:
    """A folder in which every user may make files, and nobody may remove another's."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise
    else:
        path.chmod(0o1777)


def _wait(lock: IO[str], kind: int, tell: Callable[[str], None]) -> None:
    """Takes a lock, alone or shared; `tell` hears who is in the way."""
    looked = False
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if (name := _named(lock)) or looked:  # who has only just taken it may not have written yet
                tell(name or "another process")
            looked = True
            time.sleep(POLL_S)
        else:
            return


def _once(on_wait: Callable[[str], None] | None) -> Callable[[str], None]:
    """`on_wait`, but only the first of many calls reaches it."""
    waiting = [on_wait] if on_wait is not None else []

    def tell(holder: str) -> None:
        if waiting:
            waiting.pop()(holder)

    return tell


def _name(file: IO[str], purpose: str) -> None:
    """Writes who has the lock and what for, unless the file is one of another user that only locks."""
    if file.writable():
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()}, {purpose}")
        file.flush()


def _named(file: IO[str]) -> str:
    """The holder as it named itself; "" if it has not written yet."""
    file.seek(0)
    return file.read()


def _folder() -> Path:
    """Where locks lie: not below anything that differs between a login, a service and a cron job, as homes and TMPDIR do."""
    return Path(os.environ.get(VARIABLE) or FOLDER)

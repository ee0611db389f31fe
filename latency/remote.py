"""Devices behind a shell: the runner is put there, checked, run and removed; a connection that breaks is made again."""

import contextlib
import getpass
import os
import socket
import subprocess
import tempfile
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

from latency import holder
from latency.device import RunnerDevice
from latency.errors import DeviceError, DeviceUnreachable
from latency.shell import Shell, last_line, read_lines

BEAT_S = 5.0
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before each new attempt after a connection broke; after the last one the device counts as unreachable."""
NOT_FOUND = 127


class RemoteDevice(RunnerDevice):
    """A `Device` that a `Shell` reaches. A subclass says which command there does a job, and which holds the lock."""

    def __init__(
        self, name: str, shell: Shell, *, silence_s: float = 180.0, waits_s: Sequence[float] = WAITS_S
    ) -> None:
        """A device called `name`; it is not touched yet.

        Args:
            name: of the target; locks go by the shell's name, so two targets on one device take turns.
            shell: reaches it.
            silence_s: a runner that prints nothing for so many seconds is given up.
            waits_s: seconds before each new attempt when the connection broke. The first contact gets one attempt.
        """
        super().__init__(name, lock=shell.name)
        self.shell = shell
        self._silence_s = silence_s
        self._waits_s = waits_s
        self._met = False
        self._depth = 0
        self._hold: Hold | None = None
        self._purpose = ""
        self._on_wait: Callable[[str], None] | None = None

    @abstractmethod
    def _runner(self, folder: str) -> list[str]:
        """The command there that does the job in a folder there and prints its events."""

    def _holder(self, who: str) -> list[str] | None:
        """The command there that holds the device's lock (as `latency.holder` does); None if only this machine uses it."""
        return None

    @contextlib.contextmanager
    def reserve(self, purpose: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Takes this machine's lock at once, and the one on the device when it is first used inside."""
        with self._lock.held(purpose, on_wait=on_wait):
            if not self._depth:
                self._purpose, self._on_wait = purpose, on_wait
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth and self._hold is not None:
                    self._hold.release()
                    self._hold = None

    def _lines(self, files: Mapping[str, bytes]) -> Generator[bytes, None, None]:
        self.hold()
        folder = self.shell.put(files)
        self._met = True
        reachable = True
        try:
            yield from self.shell.lines(self._runner(folder), silence_s=self._silence_s)
        except DeviceUnreachable:
            reachable = False  # the next job removes what this one left
            raise
        finally:
            if reachable:
                with contextlib.suppress(DeviceUnreachable):
                    self.shell.remove(folder)

    def _recover(self, failures: int, error: DeviceUnreachable) -> None:
        if not self._met:
            raise error
        if failures > len(self._waits_s):
            self._met = False  # what is asked of it next gets one attempt again
            raise DeviceUnreachable(f"{error} (given up after {failures} attempts)") from error
        wait_s = self._waits_s[failures - 1]
        if self._on_wait is not None:
            self._on_wait(f"{error} (next attempt in {wait_s:g} s)")
        time.sleep(wait_s)

    def hold(self) -> None:
        """Holds the device's own lock until the reservation ends, from now on or still; a broken connection has lost it."""
        if self._hold is not None:
            if self._hold.alive:
                return
            self._hold.release()
            self._hold = None
        command = self._holder(f"{_user()}@{socket.gethostname()}, process {os.getpid()}, {self._purpose}")
        if command is not None:
            self._hold = Hold(self.shell, command, on_wait=self._on_wait)


def _user() -> str:
    """Who runs this; a number where the system has no name for it, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


class PythonRemote(RemoteDevice):
    """A device with python3, numpy and onnxruntime."""

    def __init__(
        self,
        name: str,
        shell: Shell,
        *,
        python: str = "python3",
        silence_s: float = 180.0,
        waits_s: Sequence[float] = WAITS_S,
    ) -> None:
        super().__init__(name, shell, silence_s=silence_s, waits_s=waits_s)
        self._python = python

    def _runner(self, folder: str) -> list[str]:
        return [self._python, f"{folder}/runner.py", folder]

    def _holder(self, who: str) -> list[str]:
        source = Path(holder.__file__).read_text(encoding="utf-8")
        return [self._python, "-c", source, f"{self.shell.folder}/pocketnas.lock", who]

    def hold(self) -> None:
        try:
            super().hold()
        except HolderFailed as error:
            if error.code != NOT_FOUND:
                raise
            raise DeviceError(
                f"{self.shell.name}: the device needs python3 with numpy and onnxruntime, but {self._python!r} is not found "
                "there: install it, or say where it is under `device: python` in the target's file"
            ) from error

    def _explained(self, reason: str) -> str:
        for package in ("onnxruntime", "numpy"):
            if f"No module named '{package}'" in reason:
                install = [self._python, "-m", "pip", "install", "numpy", "onnxruntime"]
                return (
                    f"the device's {self._python} has no {package}: run `{' '.join(install)}` there, or name another "
                    "interpreter under `device: python` in the target's file"
                )
        return super()._explained(reason)


class HolderFailed(DeviceError):
    """The command that holds a device's lock did not start; `code` is its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Hold:
    """A device's lock, held by a command there that is told every few seconds that its holder lives."""

    def __init__(self, shell: Shell, command: Sequence[str], *, on_wait: Callable[[str], None] | None = None) -> None:
        """Waits for the lock; `on_wait` hears who has it.

        Raises:
            DeviceUnreachable: the connection failed.
            HolderFailed: the command did.
        """
        self._stopped = threading.Event()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `release`
        self._process = shell.start(command, stdin=subprocess.PIPE, stderr=self._stderr)
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        assert self._process.stdout is not None
        try:
            for line in read_lines(self._process.stdout, silence_s=None):
                word, _, rest = line.decode(errors="replace").partition(" ")
                if word == "held":
                    return
                if word == "waiting" and on_wait is not None:
                    on_wait(rest)
        except BaseException:  # an interrupt while another one has it
            self.release()
            raise
        self._process.wait()
        self._stderr.seek(0)
        complaints = self._stderr.read().decode(errors="replace")
        self.release()
        code = self._process.returncode
        found = shell.trouble(code, complaints)
        raise found or HolderFailed(
            f"{shell.name}: its lock cannot be taken: {last_line(complaints)} (exit code {code})", code
        )

    @property
    def alive(self) -> bool:
        """Whether the command, and so the connection, is still there."""
        return self._process.poll() is None

    def release(self) -> None:
        """Ends the command there."""
        self._stopped.set()
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # type: ignore[union-attr]
            try:
                self._process.wait(timeout=BEAT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_S):
            try:
                os.write(self._process.stdin.fileno(), b".\n")  # type: ignore[union-attr]
            except (OSError, ValueError):  # it ended, or is being ended
                return

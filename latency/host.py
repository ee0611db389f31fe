"""The machine this runs on, as a device: the runner in a process of its own."""

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

from latency.device import RunnerDevice
from latency.errors import DeviceError
from latency.lock import DeviceLock
from latency.shell import how_it_ended, read_lines

HOST = "host"  # name of this machine's lock, whatever the target is called


class _Here(threading.local):
    """What this thread computes already."""

    give_way: Callable[[], None] | None = None


_here = _Here()


@contextlib.contextmanager
def computing(purpose: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[Callable[[], None]]:
    """Computes on this machine in turns with measuring on it, so that neither tells lies about the other's speed.

    What is computed inside of something that does so already is a part of it.

    Args:
        purpose: what is computed, shown to those that wait.
        on_wait: called with the description of what is being measured whenever one must wait.

    Yields:
        A function to call between two steps: whoever wants to measure does so before that call returns. Where the lock's file
        cannot be made nobody can measure either, and it does nothing.
    """
    if _here.give_way is not None:
        yield _here.give_way
        return
    with contextlib.ExitStack() as stack:
        try:
            give_way = stack.enter_context(DeviceLock(HOST).shared(purpose, on_wait=on_wait))
        except DeviceError:
            give_way = _nothing
        _here.give_way = give_way
        try:
            yield give_way
        finally:
            _here.give_way = None


def _nothing() -> None:
    """Nobody to give way to."""


class HostDevice(RunnerDevice):
    """Runs networks on this machine. The child process is killed whenever its job is left, also by an interrupt."""

    def __init__(self, name: str = "host", *, python: str = sys.executable, silence_s: float = 180.0) -> None:
        """A device called `name`.

        Args:
            name: of the target, for messages.
            python: the interpreter that runs the runner; it needs numpy and onnxruntime.
            silence_s: a runner that prints nothing for so many seconds is given up.
        """
        super().__init__(name)
        self._lock = DeviceLock(HOST)
        self._python = python
        self._silence_s = silence_s

    def _command(self, folder: str) -> list[str]:
        """What runs the job in `folder`."""
        return [self._python, str(Path(folder, "runner.py")), folder]

    def _lines(self, files: Mapping[str, bytes]) -> Generator[bytes, None, None]:
        with tempfile.TemporaryDirectory(prefix="pocketnas-", ignore_cleanup_errors=True) as folder:
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            complaints = Path(folder, "stderr")
            with complaints.open("wb") as stderr:
                process = (
                    subprocess.Popen(  # in a session of its own: an interrupt reaches only the parent, which ends it
                        self._command(folder),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=stderr,
                        start_new_session=True,
                    )
                )
            try:
                assert process.stdout is not None
                if (yield from read_lines(process.stdout, silence_s=self._silence_s)):
                    raise DeviceError(
                        f"{self.name}: the runner gave no sign of life for {self._silence_s:g} s; it was ended"
                    )
                process.wait()
            finally:
                process.kill()
                process.wait()
                process.stdout.close()  # type: ignore[union-attr]
            if process.returncode:
                raise DeviceError(
                    f"{self.name}: {how_it_ended(process.returncode, complaints.read_text(errors='replace'))}"
                )

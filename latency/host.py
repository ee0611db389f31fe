"""The machine this runs on, as a device: the runner in a process of its own."""

import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import IO

from latency.device import RunnerDevice
from latency.errors import DeviceError


class HostDevice(RunnerDevice):
    """Runs networks on this machine. The child process is killed whenever its job is left, also by an interrupt."""

    def __init__(self, name: str = "host", *, python: str = sys.executable, silence_s: float = 180.0) -> None:
        """A device called `name`.

        Args:
            name: whose lock is taken.
            python: the interpreter that runs the runner; it needs numpy and onnxruntime.
            silence_s: a runner that prints nothing for so many seconds is given up.
        """
        super().__init__(name)
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
                yield from self._read(process.stdout)
                process.wait()
            finally:
                process.kill()
                process.wait()
                process.stdout.close()  # type: ignore[union-attr]
            if process.returncode:
                raise DeviceError(
                    f"{self.name}: {_how_it_ended(process.returncode, complaints.read_text(errors='replace'))}"
                )

    def _read(self, stream: IO[bytes]) -> Generator[bytes, None, None]:
        """Lines of a pipe as they come, never waiting longer than `silence_s`."""
        pieces: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while True:
                if not selector.select(self._silence_s):
                    raise DeviceError(
                        f"{self.name}: the runner gave no sign of life for {self._silence_s:g} s; it was ended"
                    )
                piece = os.read(stream.fileno(), 1 << 20)
                if not piece:
                    return
                if b"\n" in piece:
                    *lines, rest = (b"".join(pieces) + piece).split(b"\n")
                    yield from lines
                    pieces = [rest]
                else:
                    pieces.append(piece)


def _how_it_ended(code: int, complaints: str) -> str:
    """One line about a runner that failed without saying why itself."""
    last = complaints.strip().splitlines()[-1:] or ["it said nothing"]
    if code == -9:
        return "the runner was killed (signal 9): the device may be out of memory"
    if code < 0:
        return f"the runner crashed (signal {-code}): {last[0]}"
    return f"the runner failed (exit code {code}): {last[0]}"

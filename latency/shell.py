"""The seam to devices on which commands can be run: over ssh, over adb. A subclass says what reaches the device."""

import io
import os
import posixpath
import selectors
import subprocess
import tarfile
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import IO

from latency.errors import DeviceError, DeviceUnavailable, DeviceUnreachable

ANSWER_S = 60.0

# Arguments: where to make the folder. Reads a tar archive; prints the folder, then the hash and name of each file. Old
# folders are those of jobs whose connection broke: who calls this has the device to himself.
UNPACK = (
    'rm -rf "$1"/pocketnas-job-*; folder=$(mktemp -d "$1/pocketnas-job-XXXXXX") && echo "$folder" && '
    'cd "$folder" && tar -xf - && sha256sum -- *'
)
STATUS = '"$@"; exit $?'  # run by a shell in between, a command that dies of a signal has an exit code: 128 + signal


@dataclass(frozen=True)
class Completed:
    """A command that ended: its exit code (128 + signal where it was killed), and what it wrote."""

    code: int
    stdout: bytes
    stderr: str


class Shell(ABC):
    """Runs commands on a device through a command-line client on this machine.

    Commands are lists of arguments; what is made of them on the way keeps every argument as it is. Where the connection fails
    all methods raise `DeviceUnreachable` if another try may help, else `DeviceError`.
    """

    def __init__(self, name: str, *, folder: str) -> None:
        """A shell on a device.

        Args:
            name: what messages and locks call the device, such as ``ssh pi@board``: the same for all that reach it this way.
            folder: a folder there that can be written.
        """
        self.name = name
        self.folder = folder

    @abstractmethod
    def command(self, args: Sequence[str]) -> list[str]:
        """The command line on this machine that runs `args` on the device, with its three streams."""

    @abstractmethod
    def trouble(self, code: int, stderr: str) -> DeviceError | None:
        """What it means that the client ended so; None: that is how the command on the device ended."""

    def start(self, args: Sequence[str], *, stdin: int | IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        """Starts a command whose stdout is a pipe; ending the returned process ends the connection.

        Raises:
            DeviceUnavailable: the client is not installed.
        """
        command = self.command(args)
        try:
            return subprocess.Popen(  # in a session of its own: an interrupt reaches only the parent, which ends it
                command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise DeviceUnavailable(
                f"{self.name}: the program {command[0]!r} is needed, it cannot be run ({error.strerror})"
            ) from error

    def run(self, args: Sequence[str], *, stdin: bytes = b"", timeout_s: float = ANSWER_S) -> Completed:
        """Runs a command to its end."""
        with tempfile.TemporaryFile() as stderr, tempfile.TemporaryFile() as content:
            content.write(stdin)
            content.seek(0)
            process = self.start(["sh", "-c", STATUS, "sh", *args], stdin=content, stderr=stderr)
            try:
                stdout, _ = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                raise DeviceUnreachable(f"{self.name}: {args[0]} gave no answer within {timeout_s:g} s") from None
            finally:
                _end(process)
            complaints = _text(stderr)
        self._check(process.returncode, complaints)
        return Completed(process.returncode, stdout, complaints)

    def lines(self, args: Sequence[str], *, silence_s: float) -> Generator[bytes, None, None]:
        """Runs a command and yields its lines as they come; closing the generator ends the connection.

        Raises:
            DeviceError: the command failed.
            DeviceUnreachable: the connection broke, or no line came for `silence_s` seconds.
        """
        with tempfile.TemporaryFile() as stderr:
            process = self.start(["sh", "-c", STATUS, "sh", *args], stdin=subprocess.DEVNULL, stderr=stderr)
            try:
                assert process.stdout is not None
                if (yield from read_lines(process.stdout, silence_s=silence_s)):
                    raise DeviceUnreachable(f"{self.name}: no sign of life for {silence_s:g} s")
                process.wait()
            finally:
                _end(process)
            complaints = _text(stderr)
        self._check(process.returncode, complaints)
        if process.returncode:
            raise DeviceError(f"{self.name}: {how_it_ended(process.returncode, complaints)}")

    def put(self, files: Mapping[str, bytes]) -> str:
        """Writes files into a new folder on the device, checks their hashes there, and returns the folder's path."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as packed:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                packed.addfile(entry, io.BytesIO(content))
        size = archive.tell()
        done = self.run(
            ["sh", "-c", UNPACK, "sh", self.folder], stdin=archive.getvalue(), timeout_s=ANSWER_S + size / 1e5
        )
        if done.code:
            raise DeviceError(
                f"{self.name}: files cannot be written to {self.folder} there ({last_line(done.stderr)}): free some space, or "
                "name another folder under `device: folder` in the target's file"
            )
        folder, *hashes = done.stdout.decode().splitlines()
        expected = {f"{sha256(content).hexdigest()}  {name}" for name, content in files.items()}
        if set(hashes) != expected:
            raise DeviceUnreachable(f"{self.name}: files arrived damaged there")
        return folder

    def remove(self, path: str) -> None:
        """Deletes a folder that `put` made; one that is gone already is fine."""
        if not posixpath.basename(path).startswith("pocketnas-"):
            raise ValueError(f"only what was put there is removed, got {path!r}")
        self.run(["rm", "-rf", path])

    def _check(self, code: int, complaints: str) -> None:
        found = self.trouble(code, complaints)
        if found is not None:
            raise found


def read_lines(stream: IO[bytes], *, silence_s: float | None) -> Generator[bytes, None, bool]:
    """Lines of a pipe as they come; returns whether it ended because nothing came for `silence_s` seconds (None: never)."""
    pieces: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(silence_s):
                return True
            piece = os.read(stream.fileno(), 1 << 20)
            if not piece:
                return False
            if b"\n" in piece:
                *lines, rest = (b"".join(pieces) + piece).split(b"\n")
                yield from lines
                pieces = [rest]
            else:
                pieces.append(piece)


def how_it_ended(code: int, complaints: str) -> str:
    """One line about a runner that failed without saying why itself; codes below 0 and above 128 are signals."""
    signal = -code if code < 0 else code - 128 if code > 128 else 0
    if signal == 9:
        return "the runner was killed (signal 9): the device may be out of memory"
    if signal:
        return f"the runner crashed (signal {signal}): {last_line(complaints)}"
    return f"the runner failed (exit code {code}): {last_line(complaints)}"


def last_line(complaints: str) -> str:
    """What a program said last: most often its reason."""
    return (complaints.strip().splitlines() or ["it said nothing"])[-1]


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()

"""The phone's end of the adb protocol, for the real `adb` client: connect, shell v2 with exit codes, sync push and pull.

Started as ``python phone.py ROOT`` it prints its port and serves until it is killed. Paths under /data/local/tmp lie in ROOT/tmp;
commands find `getprop` and `dumpsys` in ROOT/bin. Programs for arm64 run through qemu, which a phone's kernel would do itself.
"""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import IO

FEATURES = "device::ro.product.name=test;ro.product.model=Test;ro.product.device=test;features=shell_v2,cmd"
MOST = 1 << 18  # bytes in a message
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
MAPPED = "/data/local/tmp"
LOADER = "ld-linux-aarch64.so.1"


class Stream:
    """One service that the client opened: bytes in, bytes out, one unacknowledged message at a time."""

    def __init__(self, phone: "Connection", local: int, remote: int) -> None:
        self.phone, self.local, self.remote = phone, local, remote
        self.reader, self.feed = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        self.writing, self.acknowledged = threading.Lock(), threading.Semaphore(0)
        self.process: subprocess.Popen[bytes] | None = None
        self.gone = False

    def send(self, data: bytes) -> None:
        with self.writing:
            for start in range(0, len(data), MOST):
                self.phone.send(b"WRTE", self.local, self.remote, data[start : start + MOST])
                self.acknowledged.acquire()
                if self.gone:
                    self.acknowledged.release()  # who waits behind this one goes, too
                    raise ConnectionError

    def close(self) -> None:
        if self.phone.streams.pop(self.local, None) is not None:  # else the client has closed it
            self.phone.send(b"CLSE", self.local, self.remote)
            self.feed.close()

    def kill(self) -> None:
        self.gone = True
        self.acknowledged.release()
        self.feed.close()
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it may end just now
                os.killpg(self.process.pid, signal.SIGHUP)

    def take(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # it may be closed just now
            self.feed.write(data)
            self.feed.flush()

    def shell(self, command: str) -> None:
        command = command.replace(MAPPED, f"{ROOT}/tmp")
        words = [f"qemu-aarch64-static {word}" if word.endswith(LOADER) else word for word in command.split(" ")]
        environment = {**os.environ, "PATH": f"{ROOT}/bin:{os.environ['PATH']}"}
        self.process = process = subprocess.Popen(
            ["sh", "-c", " ".join(words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        if self.gone:  # before there was anything to end
            self.kill()
        threading.Thread(target=self.take_input, args=(process,), daemon=True).start()
        copies = [
            threading.Thread(target=self.copy, args=(pipe, kind), daemon=True)
            for pipe, kind in ((process.stdout, STDOUT), (process.stderr, STDERR))
        ]
        for copy in copies:
            copy.start()
        for copy in copies:
            copy.join()
        code = process.wait()
        self.send(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))
        self.close()

    def take_input(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        try:
            while header := self.reader.read(5):
                kind, size = struct.unpack("<BI", header)
                data = self.reader.read(size)
                if kind == STDIN:
                    process.stdin.write(data)
                    process.stdin.flush()
                elif kind == CLOSE_STDIN:
                    break
            process.stdin.close()
        except OSError:
            pass

    def copy(self, pipe: IO[bytes], kind: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(pipe.fileno(), 1 << 16):
                self.send(struct.pack("<BI", kind, len(data)) + data)

    def sync(self) -> None:
        while len(header := self.reader.read(8)) == 8:
            request, size = header[:4], struct.unpack("<I", header[4:])[0]
            text = self.reader.read(size).decode() if size and request != b"QUIT" else ""
            path = Path(text.rpartition(",")[0] if request == b"SEND" else text)
            path = Path(str(path).replace(MAPPED, f"{ROOT}/tmp"))
            if request == b"QUIT":
                break
            try:
                self.send(getattr(self, f"sync_{request.decode().lower()}")(path, text))
            except OSError as error:
                reason = f"{error.strerror}: {path}".encode()
                self.send(b"FAIL" + struct.pack("<I", len(reason)) + reason)
        self.close()

    def sync_stat(self, path: Path, text: str) -> bytes:
        found = path.stat() if path.exists() else None
        return b"STAT" + struct.pack(
            "<III", *((found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0))
        )

    def sync_send(self, path: Path, text: str) -> bytes:
        pieces = []
        while (header := self.reader.read(8))[:4] == b"DATA":
            pieces.append(self.reader.read(struct.unpack("<I", header[4:])[0]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(pieces))
        path.chmod(int(text.rpartition(",")[2]) & 0o777)
        return b"OKAY" + struct.pack("<I", 0)

    def sync_recv(self, path: Path, text: str) -> bytes:
        content = path.read_bytes()
        pieces = [content[start : start + (1 << 16)] for start in range(0, len(content), 1 << 16)]
        return (
            b"".join(b"DATA" + struct.pack("<I", len(piece)) + piece for piece in pieces)
            + b"DONE"
            + struct.pack("<I", 0)
        )


class Connection:
    """The client's connection: messages of 24 bytes of header and data, for many streams at once."""

    def __init__(self, link: socket.socket) -> None:
        self.link, self.sending, self.last = link, threading.Lock(), 0
        self.streams: dict[int, Stream] = {}

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        number = struct.unpack("<I", command)[0]
        header = struct.pack("<4sIIIII", command, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self.sending:
            self.link.sendall(header + data)

    def receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.link.recv(size - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def serve(self) -> None:
        try:
            while True:
                command, first, second, size, _, _ = struct.unpack("<4sIIIII", self.receive(24))
                self.handle(command, first, second, self.receive(size))
        except OSError:
            pass
        except Exception:
            traceback.print_exc()
        finally:
            for stream in list(self.streams.values()):
                stream.kill()
            self.link.close()

    def handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command == b"CNXN":
            self.send(b"CNXN", 0x01000001, MOST, FEATURES.encode())
        elif command == b"OPEN":
            self.last += 1
            service, _, what = data.rstrip(b"\0").decode().partition(":")
            if service.split(",")[0] not in ("shell", "sync"):
                self.send(b"CLSE", 0, first)
                return
            stream = self.streams[self.last] = Stream(self, self.last, first)
            self.send(b"OKAY", self.last, first)
            work, arguments = (stream.sync, ()) if service == "sync" else (stream.shell, (what,))
            threading.Thread(target=self.guarded, args=(work, arguments), daemon=True).start()
        elif command == b"CLSE":
            if stream := self.streams.pop(second, None):
                stream.kill()
        elif stream := self.streams.get(second):
            if command == b"OKAY":
                stream.acknowledged.release()
            elif command == b"WRTE":
                stream.take(data)
                self.send(b"OKAY", second, first)

    def guarded(self, work, arguments) -> None:
        with contextlib.suppress(OSError, ValueError):  # the connection or the stream was closed meanwhile
            work(*arguments)


if __name__ == "__main__":
    ROOT = Path(sys.argv[1]).resolve()
    server = socket.create_server(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0))
    sys.stdout.write(f"{server.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        link, _ = server.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=Connection(link).serve, daemon=True).start()

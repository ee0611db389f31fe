"""A phone for tests: the real `adb` client talks to a device end of ours (`phone.py`), whose processor is this machine's own."""

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest

from latency.adb import AdbShell
from latency.bundle import Bundle, android_bundle
from latency.phone import Phone

FOLDER = "/data/local/tmp/pocketnas"
LIBRARY = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"), None)
NEEDED = [
    pytest.mark.skipif(shutil.which("adb") is None, reason="there is no adb (apt install adb)"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)"),
    pytest.mark.skipif(LIBRARY is None, reason="this onnxruntime has no shared library of its own"),
]
BATTERY = "AC powered: false\nUSB powered: {usb}\nlevel: {level}\ntemperature: {tenths}\n"


class TestPhone:
    """A device end in a process of its own, which can be killed and started again on the same port."""

    __test__ = False

    def __init__(self, root: Path, *, wrapper: tuple[str, ...] = (), abi: str = "x86_64") -> None:
        self.root, self.wrapper = root, wrapper
        for folder in ("tmp", "bin"):
            (root / folder).mkdir(parents=True)
        self.tell(abi=abi)
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def tell(self, *, abi="x86_64", level=80, usb="true", tenths=290, thermal=0, model="Test 6", serialno="") -> None:
        """What `getprop` and `dumpsys` say from now on."""
        properties = {
            "ro.product.cpu.abilist": abi,
            "ro.product.model": model,
            "ro.build.version.release": "14",
            "ro.serialno": serialno,
        }
        cases = " ".join(f"{key}) echo '{value}';;" for key, value in properties.items())
        battery = BATTERY.format(usb=usb, level=level, tenths=tenths)
        scripts = {
            "getprop": f"case $1 in {cases} esac",
            "dumpsys": f"case $1 in battery) printf '{battery}';; thermalservice) echo 'Thermal Status: {thermal}';; "
            "power) echo mWakefulness=Asleep;; esac",
        }
        for name, script in scripts.items():
            path = self.root / "bin" / f"{name}.new"
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            path.rename(self.root / "bin" / name)

    def start(self) -> None:
        command = [
            *self.wrapper,
            sys.executable,
            str(Path(__file__).with_name("phone.py")),
            str(self.root),
            str(self.port),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.shell.reconnect()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def shell(self) -> AdbShell:
        return AdbShell(self.serial, folder=FOLDER)

    def device(self, **options) -> Phone:
        quick = {"waits_s": (0.3, 0.5, 1.0, 2.0), "cooling_s": (0.0, 0.0), "hot": float("inf")}
        return Phone("test", self.shell, **{**quick, **options})


@contextlib.contextmanager
def adb_server(folder: Path) -> Iterator[None]:
    """An adb server of our own, on a free port, with keys in a folder of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("POCKETNAS_LOCKS", str(folder / "locks"))
        subprocess.run(["adb", "start-server"], check=True, capture_output=True, timeout=30)
        try:
            yield
        finally:
            subprocess.run(["adb", "kill-server"], check=False, capture_output=True, timeout=30)


def bundle_for(abi: str, runner: Path) -> Bundle:
    assert LIBRARY is not None
    return android_bundle(LIBRARY, runner, abi=abi)

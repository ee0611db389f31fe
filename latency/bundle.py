"""What goes onto a phone: ONNX Runtime and the runner in C, either the user's Android build or a Linux bundle made here.

The bundle needs nothing from Android: the arm64 Linux wheel's library, its own loader and C library from the cross compiler, and
the runner compiled by it. It has the CPU provider only.
"""

import hashlib
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from latency.errors import DeviceError
from latency.native_runner import source_folder

COMPILER = "aarch64-linux-gnu-gcc"
PACKAGES = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross libstdc++6-arm64-cross"
LIBRARIES = (  # that the wheel's library asks for
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
)
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")
MACHINES = {"arm64-v8a": (2, 183), "armeabi-v7a": (1, 40), "x86_64": (2, 62), "x86": (1, 3)}
"""Of each Android ABI what an ELF file says: 32 (1) or 64 bits (2), and the machine."""

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Bundle:
    """Files for a phone, all in one folder there.

    Attributes:
        kind: ``bundle`` or ``android``, which says how the runner is started.
        version: of ONNX Runtime, where it is known before it runs.
        abi: Android's name of the instruction set.
        files: contents by name: ``runner``, ``libonnxruntime.so`` and what they need.
    """

    kind: str
    version: str | None
    abi: str
    files: Mapping[str, bytes]

    def described(self, version: str) -> dict[str, bytes]:
        """The files with a description of them (``runtime.json``) and their hashes (``SHA256SUMS``)."""
        told = {key: value for key, value in asdict(self).items() if key != "files"}
        files = {**self.files, "runtime.json": json.dumps({**told, "version": version}).encode()}
        sums = "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
        return {**files, "SHA256SUMS": sums.encode()}

    @cached_property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(map(len, self.files.values()))


def linux_bundle(version: str, *, on_step: OnStep = lambda step: None) -> Bundle:
    """Makes the bundle for arm64 phones from ONNX Runtime's Linux wheel and the cross compiler.

    Args:
        version: of ONNX Runtime.
        on_step: hears what is being done.

    Raises:
        DeviceError: the cross compiler or a library of its is missing, or the wheel cannot be had; the message says what to do.
    """
    if shutil.which(COMPILER) is None:
        raise DeviceError(f"--build needs the cross compiler {COMPILER}, it is not here: run `apt install {PACKAGES}`")
    files = {name: _library(name) for name in LIBRARIES}
    with tempfile.TemporaryDirectory(prefix="pocketnas-") as folder:
        on_step("compiling the runner")
        runner = Path(folder, "runner")
        _run([COMPILER, "-std=gnu11", "-O2", "-s", "-o", str(runner), str(source_folder() / "runner.c"), "-ldl", "-lm"])
        on_step(f"downloading ONNX Runtime {version} for arm64")
        platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
        python = f"{sys.version_info.major}{sys.version_info.minor}"
        _run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--only-binary", ":all:", *platforms, "--python-version", python, "--implementation", "cp"),
                *("--dest", folder, f"onnxruntime=={version}"),
            ]
        )
        [wheel] = Path(folder).glob("onnxruntime-*.whl")
        library = _from_archive(wheel, "onnxruntime/capi/libonnxruntime.so")
        files |= {"runner": runner.read_bytes(), "libonnxruntime.so": library}
    return Bundle("bundle", version, "arm64-v8a", files)


def android_bundle(runtime: Path, runner: Path | None, *, abi: str) -> Bundle:
    """The user's own Android build.

    Args:
        runtime: Microsoft's AAR, or a ``libonnxruntime.so``.
        runner: the runner in C, compiled with Android's NDK.
        abi: the phone's.

    Raises:
        DeviceError: a file is missing, or made for another kind of processor.
    """
    if runner is None:
        raise DeviceError(
            f"--runtime needs the runner beside the library: compile it with Android's NDK and name it with --runner: "
            f"`aarch64-linux-android29-clang -O2 -o pocketnas-runner {source_folder() / 'runner.c'} -ldl -lm`"
        )
    packed = zipfile.is_zipfile(runtime)
    library = _from_archive(runtime, f"jni/{abi}/libonnxruntime.so") if packed else _read(runtime)
    files = {"libonnxruntime.so": library, "runner": _read(runner)}
    for content, path in ((library, runtime), (files["runner"], runner)):
        found = _abi(content)
        if found != abi:
            raise DeviceError(f"{path}: must be made for the phone's {abi}, it is {found or 'no program or library'}")
    return Bundle("android", None, abi, files)


def _abi(content: bytes) -> str | None:
    """The Android ABI that a program or library is for, or None if it is neither."""
    if content[:4] != b"\x7fELF" or len(content) < 20:
        return None
    kind = (content[4], struct.unpack_from("<H", content, 18)[0])
    return next((abi for abi, known in MACHINES.items() if known == kind), f"for machine {kind[1]}")


def _library(name: str) -> bytes:
    """A library of the cross compiler's."""
    path = Path(_run([COMPILER, f"-print-file-name={name}"]).strip())
    if not path.is_absolute():
        raise DeviceError(f"--build needs {name} of the cross compiler, it is not here: run `apt install {PACKAGES}`")
    return _read(path)


def _from_archive(archive: Path, start: str) -> bytes:
    """The content of the one file of a zip archive whose name begins so."""
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if name.startswith(start)]
        if not names:
            have = (
                ", ".join(sorted(name for name in files.namelist() if "libonnxruntime.so" in name))
                or "no libonnxruntime.so"
            )
            raise DeviceError(f"{archive}: must contain {start}, it has {have}")
        return files.read(names[0])


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DeviceError(f"{path}: cannot be read ({error.strerror})") from error


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise DeviceError(f"`{command[0].rpartition('/')[2]} {command[1]}` failed: {errors[-1]}")
    return done.stdout

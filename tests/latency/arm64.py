"""An arm64 Linux board without the board: Debian's Python and the Linux wheels in a folder, run by qemu's user mode."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from latency.bundle import PLATFORMS

HIDE_SYS = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs none /sys && exec "$@"', "sh")
"""Runs a command that does not see this machine's /sys: on it ONNX Runtime for arm64 crashes."""
QEMU = "qemu-aarch64-static"
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
WRAPPER = """#!/bin/sh
export PYTHONHOME={folder}/root/usr PYTHONPATH={folder}/site
exec unshare -rm sh -c 'mount -t tmpfs none /sys && exec "$@"' sh {qemu} {loader} --library-path {libraries} {python} "$@"
"""


def missing_for_arm64(*programs: str) -> str | None:
    """Why arm64 programs cannot be run here, or None if they can."""
    for program in (QEMU, "unshare", *programs):
        if shutil.which(program) is None:
            return f"there is no {program}"
    if subprocess.run([*HIDE_SYS, "true"], capture_output=True).returncode:
        return "file systems cannot be hidden here (unshare)"
    return None


def arm64_python(folder: Path) -> Path:
    """Makes an interpreter for arm64 with numpy and onnxruntime in a folder; skips the test where they cannot be downloaded."""
    apt = _apt_options(folder / "apt")
    _download(["apt-get", *apt, "-qq", "update"])
    _download(["apt-get", *apt, "-qq", "-y", "--no-install-recommends", "--download-only", "install", *PACKAGES])
    for package in (folder / "apt" / "cache" / "archives").glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
    root = folder / "root"
    [python] = [path for path in (root / "usr/bin").glob("python3.*") if path.name[8:].isdigit()]
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    wheels = [f"{name}=={version(name)}" for name in ("onnxruntime", "numpy")]
    _download(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", *platforms),
            *("--python-version", python.name[6:], "--implementation", "cp", "--dest", str(folder / "wheels"), *wheels),
        ]
    )
    for wheel in (folder / "wheels").glob("*.whl"):
        shutil.unpack_archive(wheel, folder / "site", "zip")
    loader, *_ = root.rglob("ld-linux-aarch64.so.1")
    libraries = ":".join({str(path.parent) for path in root.rglob("*.so.*") if "aarch64-linux-gnu" in str(path.parent)})
    wrapper = folder / "python-arm64"
    wrapper.write_text(
        WRAPPER.format(folder=folder, qemu=QEMU, loader=loader, libraries=libraries, python=python), encoding="utf-8"
    )
    wrapper.chmod(0o755)
    return wrapper


def _apt_options(folder: Path) -> list[str]:
    """Options by which apt knows arm64 only, and keeps everything in a folder."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "state/status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "state/status",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": "true",
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _download(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        pytest.skip(
            f"an arm64 system cannot be downloaded: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
        )

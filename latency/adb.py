"""Phones over adb: the ``adb`` program reaches them, and this says which are attached and what its complaints mean.

The program, not a library, does the connecting: it starts and finds its server as the user knows it (also one on another port, by
``ANDROID_ADB_SERVER_PORT``). A phone needs nothing but developer mode, with USB debugging on.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from latency.address import PIXEL_MODEL
from latency.errors import DeviceError, DeviceUnavailable, DeviceUnreachable
from latency.shell import Shell, last_line

ENDED = "pocketnas: the command ended"
ADB_S = 30.0
READY = "device"  # a phone's state that can be used
CONNECT = "switch on USB debugging in its developer options, plug it in, and accept the question on its screen"


@dataclass(frozen=True)
class Attached:
    """A phone that the adb server knows.

    Attributes:
        serial: its serial number, or ``host:port`` over the network.
        state: ``device`` where it is ready, else ``unauthorized``, ``offline``, …
        model: as it calls itself, such as ``Pixel_6``; empty where it does not tell yet.
    """

    serial: str
    state: str
    model: str


class AdbShell(Shell):
    """Runs commands over ``adb shell``, one phone."""

    def __init__(self, serial: str, *, folder: str) -> None:
        """A shell on the phone with a serial number; `folder` lies there and is made by `latency.installing`."""
        self.serial = serial
        super().__init__(f"adb {serial}", folder=folder)

    def command(self, args: Sequence[str]) -> list[str]:
        # where the connection breaks, adb itself ends with 0: only a command that says that it ended has ended
        return ["adb", "-s", self.serial, "shell", f"{shlex.join(args)} && echo {shlex.quote(ENDED)} >&2"]

    def trouble(self, code: int, stderr: str) -> DeviceError | None:
        complaint = (stderr.strip().splitlines() or [""])[-1]
        if code == 0:
            return None if ENDED in stderr else DeviceUnreachable(f"{self.name}: the connection broke")
        if code not in (1, 255):
            return None
        if re.search(r"^(error|adb): device unauthorized", stderr, re.MULTILINE):  # its first line of several
            return DeviceUnavailable(
                f"{self.name}: the phone has not allowed this computer: unlock it and accept the question on its screen"
            )
        if not complaint.startswith(("error: ", "adb: ")):
            return None
        reason = complaint.partition(": ")[2]
        if "not found" in reason or "no devices" in reason:
            known = ", ".join(f"{one.serial} ({one.state})" for one in attached()) or "none"
            return DeviceUnreachable(
                f"{self.name}: no phone with this serial is attached (there are: {known}): plug it in, or name another "
                "under `device: serial`"
            )
        if "offline" in reason:
            return DeviceUnreachable(f"{self.name}: the phone is offline: unlock it, or unplug it and plug it in again")
        return DeviceUnreachable(f"{self.name}: {reason}")

    def send(self, paths: Sequence[Path], folder: str) -> None:
        """Copies files of this machine into a folder on the phone, which must exist.

        Raises:
            DeviceError: the copying failed; the message has adb's own words.
        """
        done = _adb("-s", self.serial, "push", *map(str, paths), folder + "/", timeout_s=600.0)
        if done.returncode:
            reason = last_line(done.stderr.strip() or done.stdout)
            raise DeviceError(f"{self.name}: files cannot be copied to {folder} there ({reason})")

    def reconnect(self) -> None:
        """Connects to a phone over the network, again or for the first time; by itself adb keeps one that is dead."""
        if _over_network(self.serial):
            _adb("disconnect", self.serial)
            _adb("connect", self.serial)


def attached() -> tuple[Attached, ...]:
    """The phones that the adb server knows; it is started if there is none.

    Raises:
        DeviceError: the program is not installed, or its server cannot be started.
    """
    done = _adb("devices", "-l")
    if done.returncode:
        raise DeviceError(f"`adb devices` failed: {last_line(done.stderr)}")
    found = []
    for line in done.stdout.splitlines()[1:]:
        serial, *words = line.split()[:2] or [""]
        if words:
            models = [word.partition(":")[2] for word in line.split()[2:] if word.startswith("model:")]
            found.append(Attached(serial, words[0], models[0] if models else ""))
    return tuple(found)


def pixels() -> tuple[str, ...]:
    """Serial numbers of the Pixel phones that are attached and ready.

    Raises:
        DeviceUnavailable: there is none; the message says what there is, and what to do.
        DeviceError: there is no adb.
    """
    every = attached()
    if found := [one.serial for one in every if one.state == READY and one.model.startswith(PIXEL_MODEL)]:
        return distinct(found)
    there = ", ".join(f"{one.serial} ({one.model or one.state})" for one in every) or "none"
    raise DeviceUnavailable(
        f"no Pixel phone is attached and ready (there are: {there}): {CONNECT}; another phone takes a target file with "
        "`device: {kind: adb}`"
    )


def installed_pixels(*, folder: str) -> tuple[str, ...]:
    """Serial numbers of the attached Pixel phones that have a runtime of ours in a folder; none without adb."""
    found = []
    with suppress(DeviceError):
        for serial in pixels():
            with suppress(DeviceError):  # one that gives no answer says nothing of the others
                if not AdbShell(serial, folder=folder).run(["ls", f"{folder}/runtime/runtime.json"]).code:
                    found.append(serial)
    return tuple(found)


def serials(wanted: Sequence[str], *, name: str, model: str = "") -> tuple[str, ...]:
    """Which phones a target means: those it names, else the one attached, or all that are attached if they are of one model.

    Args:
        wanted: serial numbers that it names.
        name: of the target, for messages.
        model: how the model of an attached phone must begin.

    Raises:
        DeviceUnavailable: none is ready.
        DeviceError: they are of several models and the target names none, or there is no adb.
    """
    if wanted:
        return distinct(wanted)
    every = attached()
    ready = [one for one in every if one.state == READY and one.model.startswith(model)]
    if not ready:
        others = ", ".join(f"{one.serial} is {one.model if one.state == READY else one.state}" for one in every)
        phone = f"{model} phone" if model else "phone"
        raise DeviceUnavailable(f"{name}: a {phone} must be attached and ready, {others or 'there is none'}: {CONNECT}")
    if len({one.model for one in ready}) > 1:
        names = ", ".join(f"{one.serial} ({one.model})" for one in ready)
        raise DeviceError(
            f"{name}: phones of several models are attached: {names}: name one under `device: serial` in the target's file"
        )
    return distinct([one.serial for one in ready])


def distinct(every: Sequence[str]) -> tuple[str, ...]:
    """The same without those that reach a phone a second time, over the network as well as by USB; the cable is preferred."""
    if len(every) < 2 or not any(map(_over_network, every)):
        return tuple(every)
    found: dict[str, str] = {}
    for serial in sorted(every, key=_over_network):
        found.setdefault(_hardware_serial(serial) or f"adb {serial}", serial)
    return tuple(serial for serial in every if serial in found.values())


def _over_network(serial: str) -> bool:
    return ":" in serial


def _hardware_serial(serial: str) -> str:
    """The number that a phone has however it is reached; empty where it does not tell, or gives no answer."""
    try:
        told = AdbShell(serial, folder="").run(["getprop", "ro.serialno"], timeout_s=ADB_S).stdout
    except DeviceError:
        return ""
    return told.decode(errors="replace").strip()


def _adb(*args: str, timeout_s: float = ADB_S) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            ["adb", *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceUnreachable(
            f"`adb {args[0]}` gave no answer within {timeout_s:g} s: try `adb kill-server`"
        ) from None
    except OSError as error:
        raise DeviceUnavailable(
            f"the program adb is needed, it cannot be run ({error.strerror}): "
            "install Android's platform tools, `apt install adb`"
        ) from error

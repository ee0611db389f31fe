"""Putting a runtime onto a phone: under a temporary name, checked there, then renamed, so nothing is ever half installed."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from latency.adb import AdbShell
from latency.bundle import MACHINES, Bundle, OnStep
from latency.errors import DeviceError
from latency.layout import probe_model
from latency.phone import Phone, Runtime
from latency.settings import RuntimeSettings
from latency.shell import last_line

# Argument: the folder of pocketnas. What an interrupted install left goes too.
PREPARE = 'rm -rf "$1/incoming" && mkdir -p "$1/incoming"'
VERIFY = 'cd "$1/incoming" && chmod 755 * && sha256sum -c SHA256SUMS'
SWAP = 'cd "$1" && rm -rf old && { [ ! -e runtime ] || mv runtime old; } && mv incoming runtime && rm -rf old'
DISCARD = 'rm -rf "$1/incoming"'
TOLERANCE = 1e-4


def phone_abi(shell: AdbShell) -> str:
    """The first instruction set that the phone names of those that Android has.

    Raises:
        DeviceError: it names none of them.
    """
    told = shell.run(["sh", "-c", "getprop ro.product.cpu.abilist"]).stdout.decode(errors="replace").strip()
    for abi in told.split(","):
        if abi in MACHINES:
            return abi
    raise DeviceError(
        f"{shell.name}: the phone must name an instruction set of {', '.join(MACHINES)}, it says {told!r}"
    )


def install(
    shell: AdbShell, make: Callable[[str], Bundle], *, name: str, on_step: OnStep = lambda step: None
) -> Runtime:
    """Installs a runtime on a phone, in place of one that is there; until the last step that one stays.

    Args:
        shell: reaches the phone.
        make: gives the files for the phone's ABI.
        name: of the target, for messages.
        on_step: hears what is being done.

    Raises:
        DeviceError: the phone's ABI, the copied files, or what the runtime computes there is not what it must be.
    """
    phone = Phone(name, shell, runtime=f"{shell.folder}/incoming")
    with phone.reserve("installing a runtime", on_wait=lambda holder: on_step(f"waiting for {shell.name}: {holder}")):
        shell.reconnect()
        phone.hold()  # nobody measures there meanwhile
        abi = phone_abi(shell)
        bundle = make(abi)
        if bundle.abi != abi:
            raise DeviceError(
                f"{shell.name}: the runtime is for {bundle.abi} phones, this one is {abi}: give it one with --runtime"
            )
        try:
            on_step(f"copying {bundle.size_bytes / 2**20:.0f} MiB to {shell.serial}")
            version = bundle.version or "unknown"
            _copy(shell, bundle, version)
            on_step("comparing what it computes")
            found = _check(phone)
            if bundle.version is not None and found != bundle.version:
                raise DeviceError(f"{shell.name}: the runtime must be {bundle.version}, it says {found}")
            if found != version:  # known only now
                _copy(shell, bundle, found)
            _must(shell, SWAP, "the runtime cannot be moved into its place")
        finally:
            shell.run(["sh", "-c", DISCARD, "sh", shell.folder])
        return Phone(name, shell).runtime()


def _copy(shell: AdbShell, bundle: Bundle, version: str) -> None:
    _must(shell, PREPARE, f"{shell.folder} cannot be made there")
    with tempfile.TemporaryDirectory(prefix="pocketnas-") as folder:
        paths = []
        for file, content in bundle.described(version).items():
            path = Path(folder, file)
            path.write_bytes(content)
            paths.append(path)
        shell.send(paths, f"{shell.folder}/incoming")
    _must(shell, VERIFY, "the files arrived damaged there")


def _must(shell: AdbShell, script: str, complaint: str) -> None:
    done = shell.run(["sh", "-c", script, "sh", shell.folder], timeout_s=300.0)
    if done.code:
        raise DeviceError(f"{shell.name}: {complaint} ({last_line(done.stderr)})")


def _check(phone: Phone) -> str:
    """Runs a tiny model there; returns the runtime's version."""
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    found = phone.outputs(probe_model(), {"x": image}, settings=RuntimeSettings())["y"]
    expected = np.array([[45, 54], [81, 90]], np.float32).reshape(1, 1, 2, 2)  # sums of 3 x 3 windows
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise DeviceError(
            f"{phone.shell.name}: the runtime there must compute what the same model gives here, it differs by {difference:.3g}"
        )
    return phone.describe().runtime

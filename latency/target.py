"""Targets: which device, and how networks run on it, as a YAML file (shipped ones in ``targets/``, or a path)."""

import difflib
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from latency.address import PIXEL_MODEL, AdbAddress, Address, SshAddress
from latency.device import Device
from latency.errors import TargetError
from latency.settings import RuntimeSettings
from searchspace.errors import NasError
from searchspace.files import parse_plain

Basis = Literal["measured", "published"]

DEVICE_KEYS = {
    "host": ("kind",),
    "none": ("kind",),
    "ssh": ("kind", *SshAddress.__dataclass_fields__),
    "adb": ("kind", *AdbAddress.__dataclass_fields__),
}
DEVICE_KINDS = tuple(DEVICE_KEYS)
RUNTIME_KEYS = ("provider", "threads", "affinity", "graph_level")
PIXEL = "pixel"  # the attached Pixel phone with a runtime of ours, or else:
PIXEL_STANDS_FOR = "pixel6"
KEYS = ("name", "device", "runtime", "precision", "basis", "resolution", "budget_ms")
NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A device and how networks run on it.

    Attributes:
        name: names its latency model.
        device: kind of device: host, ssh, adb, or none where there is only what was published about it.
        settings: how the runtime executes networks there.
        basis: whether its latency model is fitted to what was measured there, or to published figures.
        resolution: input side in pixels that this target is meant for, or None.
        budget_ms: milliseconds that a network may take there unless said otherwise, or None.
        address: where the device is; None for the host, and where there is none.
        option: what ``--target`` takes to mean this one: its name, or its file's path.
    """

    name: str
    device: str
    settings: RuntimeSettings
    basis: Basis = "measured"
    resolution: int | None = None
    budget_ms: float | None = None
    address: Address | None = None
    option: str = ""

    def require_modelled(self) -> None:
        """Checks that there is or can be a latency model for how networks run here.

        Raises:
            TargetError: the runtime executes them by a provider or at a level whose kernels the models' rules do not know.
        """
        provider, level = self.settings.provider, self.settings.graph_level
        if self.basis == "measured" and (provider, level) != ("cpu", "all"):
            raise TargetError(
                f"a latency model needs the target's runtime to have provider cpu and graph_level all for now, {self.name!r} has "
                f"provider {provider} and graph_level {level}: change them, or only measure: "
                f"`nas measure ARCH --target {self.option or self.name}` works with all of them"
            )

    def open(self) -> Device:
        """The device; a remote one is not touched before it is used.

        Raises:
            TargetError: there is none.
            DeviceError: a file that it needs on this machine is not there.
        """
        if self.device == "none":
            raise TargetError(
                f"target {self.name!r} is known from published latencies only, nothing can be measured on it: attach a Pixel "
                "phone and run `nas targets install pixel --build`, or name a target that has a device (`nas targets` lists them)"
            )
        if isinstance(self.address, SshAddress):
            from latency.ssh import ssh_device

            return ssh_device(self.name, self.address)
        if isinstance(self.address, AdbAddress):
            from latency.pool import phones

            return phones(self.name, self.address, option=self.option)
        from latency.host import HostDevice

        return HostDevice(self.name)


def known_targets() -> tuple[str, ...]:
    """Names of the shipped targets."""
    folder = resources.files("latency") / "targets"
    return tuple(sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_target(name_or_path: str | Path) -> Target:
    """The target with a shipped name, or in the file at a path (anything with a slash, or ending in .yaml or .yml).

    Raises:
        TargetError: there is none, or its file breaks a rule; the message names the key.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml")):
        try:
            source = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TargetError(f"{text}: cannot be read as a target file ({error})") from error
        return _parse(source, text)
    if text == PIXEL:
        if found := _attached_pixels():
            return found
        text = PIXEL_STANDS_FOR
    if text not in known_targets():
        known = (PIXEL, *known_targets())
        raise TargetError(
            f"unknown target {text!r}{_suggestion(text, known)}; known: {', '.join(known)}, or the path of a target file"
        )
    return _parse((resources.files("latency") / "targets" / f"{text}.yaml").read_text(encoding="utf-8"), text)


def _attached_pixels() -> Target | None:
    """The attached Pixel phones with a runtime of ours, as one target; None where there is none."""
    if shutil.which("adb") is None:
        return None
    from latency.adb import installed_pixels

    serials = installed_pixels(folder=AdbAddress.folder)
    return pixel_phone(serials) if serials else None


def pixel_phone(serials: tuple[str, ...] = ()) -> Target:
    """What ``pixel`` is where a Pixel phone is attached: those with some serial numbers, or what is attached when it is used."""
    address = AdbAddress(serial=serials, model=PIXEL_MODEL)
    return Target(name=PIXEL, device="adb", settings=RuntimeSettings(), address=address, option=PIXEL)


def _parse(source: str, where: str) -> Target:
    try:
        plain = parse_plain(source)
    except NasError as error:
        raise TargetError(f"{where}: {error}") from error
    top = _section(plain, KEYS, where)
    kind, address = _device(top.get("device", {"kind": "host"}), f"{where}: device")
    runtime = _section(top.get("runtime", {}), RUNTIME_KEYS, f"{where}: runtime")
    basis = _value(top, "basis", str, where, default="measured")
    if basis not in get_args(Basis):
        raise TargetError(f"{where}: basis must be one of {', '.join(get_args(Basis))}, got {basis!r}")
    resolution = _value(top, "resolution", int, where, default=None)
    budget_ms = _value(top, "budget_ms", (int, float), where, default=None)
    for key, number in (("resolution", resolution), ("budget_ms", budget_ms)):
        if number is not None and not 0 < number < math.inf:
            raise TargetError(f"{where}: {key} must be a finite number above 0, got {number}")
    name = _value(top, "name", str, where)
    if not NAME.fullmatch(name):
        raise TargetError(
            f"{where}: name must be of letters, digits, '.', '_' and '-', as it names files; got {name!r}"
        )
    return Target(
        name=name,
        device=kind,
        settings=_settings(runtime, _value(top, "precision", str, where, default="fp32"), where),
        basis=basis,
        resolution=resolution,
        budget_ms=None if budget_ms is None else float(budget_ms),
        address=address,
        option=where,
    )


def _device(plain: object, where: str) -> tuple[str, Address | None]:
    """The kind of a device and where it is."""
    kind = _value(plain, "kind", str, where) if isinstance(plain, dict) else "host"
    if kind not in DEVICE_KINDS:
        raise TargetError(
            f"{where}: kind must be one of {', '.join(DEVICE_KINDS)}, got {kind!r}{_suggestion(kind, DEVICE_KINDS)}"
        )
    device = _section(plain, DEVICE_KEYS[kind], where)
    if kind == "ssh":
        port = _value(device, "port", int, where, default=None)
        if port is not None and not 0 < port < 65536:
            raise TargetError(f"{where}: port must be from 1 to 65535, got {port}")
        texts = {key: _value(device, key, str, where) for key in device if key not in ("kind", "port")}
        if not texts.get("address") or "\0" in "".join(texts.values()):
            raise TargetError(f"{where}: the key 'address' must name the device, got {device.get('address')!r}")
        return kind, SshAddress(port=port, **texts)
    if kind == "adb":
        serial = device.get("serial", [])
        serials = serial if isinstance(serial, list) else [serial]
        if not all(isinstance(one, str) and one for one in serials):  # a number has lost zeros in front, perhaps more
            raise TargetError(f"{where}: serial must be text, one or several, got {serial!r}: put it in quotes")
        texts = {key: _value(device, key, str, where) for key in ("model", "folder") if key in device}
        return kind, AdbAddress(serial=tuple(serials), **texts)
    return kind, None


def _settings(runtime: Mapping[str, Any], precision: str, where: str) -> RuntimeSettings:
    place = f"{where}: runtime"
    affinity = _value(runtime, "affinity", (str, list), place, default="auto")
    if isinstance(affinity, list):
        if not all(type(core) is int for core in affinity):
            raise TargetError(f"{place}: affinity must be auto, none or a list of core numbers, got {affinity}")
        affinity = tuple(affinity)
    try:
        return RuntimeSettings(
            provider=_value(runtime, "provider", str, place, default="cpu"),
            threads=_value(runtime, "threads", int, place, default=1),
            affinity=affinity,
            graph_level=_value(runtime, "graph_level", str, place, default="all"),
            precision=precision,  # type: ignore[arg-type]  # checked there
        )
    except TargetError as error:
        raise TargetError(f"{place}: {error}") from error


def _section(plain: object, keys: Sequence[str], where: str) -> dict[str, Any]:
    """A mapping with no other keys than `keys`."""
    if not isinstance(plain, dict):
        raise TargetError(f"{where}: must be a mapping with the keys {', '.join(keys)}, got {type(plain).__name__}")
    for key in plain:
        if key not in keys:
            raise TargetError(f"{where}: unknown key {key!r}{_suggestion(str(key), keys)}; known: {', '.join(keys)}")
    return plain


def _value(
    section: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str, *, default: object = ...
) -> Any:
    """The section's value, which must be of that kind (a truth value is no number)."""
    value = section.get(key, default)
    if value is ...:
        raise TargetError(f"{where}: the key {key!r} is missing")
    if value is default or (isinstance(value, kind) and not isinstance(value, bool)):
        return value
    wanted = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
    raise TargetError(f"{where}: {key} must be {wanted}, got {value!r}")


def _suggestion(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""

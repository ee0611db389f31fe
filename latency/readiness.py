"""Whether a target can be used right now: its device answers, and its latency is known. If not: why, and what mends it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from latency import adb
from latency.errors import DeviceError, LatencyError, ModelError
from latency.lock import unless_taken
from latency.phone import Phone
from latency.pool import PhonePool
from latency.published.model import PublishedModel
from latency.store import load_predictor
from latency.target import PIXEL, Basis, Target, known_targets, load_target


@dataclass(frozen=True)
class Readiness:
    """What is known of a target.

    Attributes:
        name: the target's.
        basis: whether its latencies are measured on the device or fitted to published figures.
        ready: whether its device answers, if it is another than this machine, and its latency model can be used.
        reason: what there is, or what is missing with the command that mends it, in one line.
    """

    name: str
    basis: Basis
    ready: bool
    reason: str


def every_readiness() -> Iterator[Readiness]:
    """Of all shipped targets, and of ``pixel``."""
    for name in known_targets():
        yield readiness(load_target(name))
    yield pixel_readiness()


def pixel_readiness() -> Readiness:
    """Of the attached Pixel phone that has a runtime; without one it is said why, and for which target ``pixel`` stands."""
    target = load_target(PIXEL)
    known = readiness(target)
    if target.address is not None:
        return known
    try:
        missing = f"there is no runtime on {', '.join(adb.pixels())} yet: run `nas targets install pixel --build`"
    except DeviceError as error:
        missing = str(error)
    return replace(known, name=PIXEL, reason=f"stands for {target.name}, because {missing}")


def readiness(target: Target, *, folder: Path | None = None) -> Readiness:
    """Looks at a target's latency model and, where it is not this machine, asks its device.

    Args:
        target: which one.
        folder: where models lie, if not in `latency.store.models_folder`.
    """
    found: list[str] = []
    try:
        provenance = None
        if target.address is not None:
            device = target.open()
            with device.reserve("looking at it", on_wait=unless_taken(target.name)):
                provenance = device.describe()
                found.append(f"connected: {provenance.cpu}, ONNX Runtime {provenance.runtime}")
                phones = device.members if isinstance(device, PhonePool) else (device,)
                if len(phones) == 1 and isinstance(phones[0], Phone):
                    found.append(str(phones[0].state()))
        try:
            model = load_predictor(target, folder=folder)
        except ModelError as reason:
            if target.basis == "published":
                raise
            raise ModelError(
                f"{reason} (`nas search` and `nas netadapt` profile it on first use by themselves)"
            ) from None
        if isinstance(model, PublishedModel):
            found.append(model.remark)
        else:
            if provenance is not None:
                model.require(provenance, target.settings)
            networks, held_out = len(model.measurements), model.held_out
            found.append(f"latency model of {networks} networks, {held_out.within_10:.0%} within ±10 % held out")
    except LatencyError as error:
        return Readiness(target.name, target.basis, False, "; ".join([*found, str(error)]))
    return Readiness(target.name, target.basis, True, "; ".join(found))

"""Where measurements come from: what identifies a device and its runtime, and what must agree for a model to hold."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from latency.errors import ModelError
from latency.timing import Timing


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """A device as it described itself, and how what is kept with this was measured on it.

    Attributes:
        machine: instruction set, such as ``x86_64`` or ``aarch64``.
        cpu: the processor's name, with family and model where the system tells them.
        flags: its feature flags, sorted.
        cores: logical cores; None where unknown, as for all that may be None.
        governor: frequency governor of the first core.
        max_frequency_khz: highest frequency of its fastest core.
        memory_bytes: physical memory.
        system: operating system and version.
        runtime: version of ONNX Runtime.
        providers: the execution providers that this runtime has.
        nchwc_block: channels in a block of the runtime's CPU layout (8 with AVX2, 16 with AVX-512), 1 where it has none.
        batch: images that networks take at a time.
        date: of the first measurement, ISO 8601 in UTC.
        bound: the cores that measuring was bound to.
    """

    machine: str
    cpu: str
    flags: tuple[str, ...]
    cores: int | None
    governor: str | None
    max_frequency_khz: int | None
    memory_bytes: int | None
    system: str
    runtime: str
    providers: tuple[str, ...]
    nchwc_block: int
    batch: int = 1
    date: str | None = field(default=None, compare=False)
    bound: tuple[int, ...] | None = field(default=None, compare=False)

    def measured(self, timings: Iterable[Timing]) -> "Provenance":
        """The same with the date of the first of some measurements, and the cores that they were bound to, where they tell."""
        found = list(timings)
        dates = [one.date for one in found if one.date]
        cores = {core for one in found for core in one.cores or ()}
        return replace(self, date=min(dates, default=None), bound=tuple(sorted(cores)) or None)

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Provenance":
        """What `as_json` wrote; what earlier versions did not keep is left at its default.

        Raises:
            ModelError: a field is missing.
        """
        missing = [one.name for one in fields(Provenance) if one.name not in plain and one.default is MISSING]
        if missing:
            raise ModelError(f"the description of the device lacks {', '.join(missing)}: measure again")
        given = {one.name: plain[one.name] for one in fields(Provenance) if one.name in plain}
        found: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
        }
        return Provenance(**found)

    @property
    def emulated(self) -> bool:
        """Whether another processor pretends to be this one, so that what works there works, but times mean nothing."""
        return "emulated" in self.cpu

    @property
    def key(self) -> dict[str, object]:
        """The part that must be equal for latencies to be comparable."""
        return {"machine": self.machine, "cpu": self.cpu, "runtime": self.runtime, "nchwc_block": self.nchwc_block}

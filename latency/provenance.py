"""Where measurements come from: what identifies a device and its runtime, and what must agree for a model to hold."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from latency.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """A device as it described itself.

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

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Provenance":
        """What `as_json` wrote.

        Raises:
            ModelError: a field is missing.
        """
        missing = [field.name for field in fields(Provenance) if field.name not in plain]
        if missing:
            raise ModelError(f"the description of the device lacks {', '.join(missing)}: measure again")
        values = {field.name: plain[field.name] for field in fields(Provenance)}
        return Provenance(**{**values, "flags": tuple(values["flags"]), "providers": tuple(values["providers"])})

    @property
    def emulated(self) -> bool:
        """Whether another processor pretends to be this one, so that what works there works, but times mean nothing."""
        return "emulated" in self.cpu

    @property
    def key(self) -> dict[str, object]:
        """The part that must be equal for latencies to be comparable."""
        return {"machine": self.machine, "cpu": self.cpu, "runtime": self.runtime, "nchwc_block": self.nchwc_block}

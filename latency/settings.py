"""How a network is to be run, and how much measuring it is worth: values that travel to the device with every job."""

from dataclasses import asdict, dataclass
from typing import Literal, get_args

from latency.errors import TargetError

Precision = Literal["fp32", "int8"]
GraphLevel = Literal["disabled", "basic", "extended", "all"]
Affinity = Literal["auto", "none"]


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """How ONNX Runtime executes a network; two settings that differ give latencies that must not be mixed.

    Attributes:
        provider: execution provider in lower case without the suffix: ``cpu``, ``xnnpack``, ``nnapi``, …
        threads: threads inside one op, at least 1.
        affinity: ``auto`` binds the process to as many cores as threads (the fastest, and of equal ones the last),
            ``none`` leaves it to the system, a tuple of core numbers binds it to those.
        graph_level: ONNX Runtime's graph optimisation level.
        precision: of the models that are run: float32, or 8-bit integers (QDQ, static).
    """

    provider: str = "cpu"
    threads: int = 1
    affinity: Affinity | tuple[int, ...] = "auto"
    graph_level: GraphLevel = "all"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if not self.provider or self.provider != self.provider.lower():
            raise TargetError(f"provider must be a name in lower case, such as cpu or xnnpack, got {self.provider!r}")
        if self.threads < 1:
            raise TargetError(f"threads must be at least 1, got {self.threads}")
        if isinstance(self.affinity, str):
            if self.affinity not in get_args(Affinity):
                raise TargetError(f"affinity must be auto, none or a list of core numbers, got {self.affinity!r}")
        elif not self.affinity or min(self.affinity) < 0:
            raise TargetError(f"affinity must name at least one core, numbered from 0, got {list(self.affinity)}")
        for name, kinds in (("graph_level", GraphLevel), ("precision", Precision)):
            if getattr(self, name) not in get_args(kinds):
                raise TargetError(f"{name} must be one of {', '.join(get_args(kinds))}, got {getattr(self, name)!r}")

    def as_json(self) -> dict[str, object]:
        """Plain data for a job or a file."""
        plain = asdict(self)
        if not isinstance(self.affinity, str):
            plain["affinity"] = list(self.affinity)
        return plain


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure a network.

    Every network is measured in at least `processes` processes (repeats in one process share its luck with memory), at
    least `slices` slices of 14 ms (40 ms from 1.5 ms a run) in each, and then on until two halves of its slices agree
    within `tolerance` or it has used `limit_s` seconds of device time at full speed.

    Attributes:
        processes: at least so many.
        slices: at least so many in each.
        tolerance: relative difference of the halves.
        limit_s: of device time; three times as many where the device is slower than its full speed.
        quiet_ns: nanoseconds of the arithmetic probe at the device's full speed, where that is known from earlier measurements;
            None where only this one can tell.
    """

    processes: int = 2
    slices: int = 8
    tolerance: float = 0.02
    limit_s: float = 5.0
    quiet_ns: int | None = None

    def __post_init__(self) -> None:
        if self.processes < 1 or self.slices < 1 or not self.tolerance > 0 or not self.limit_s > 0:
            raise ValueError(f"processes and slices must be at least 1, tolerance and limit_s above 0, got {self}")

"""Whether a latency model still holds, and bringing it up to date: a handful of its own networks is measured again."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from latency.device import Device
from latency.errors import ModelError
from latency.model import LatencyModel, Measurement
from latency.profiling import fit_model, read_measurements, write_measurements
from latency.settings import Effort
from latency.stand_in import stand_in
from latency.store import model_path
from latency.target import Target
from latency.timing import Slice, Timing, quiet_probe
from searchspace.architecture import lower

HANDFUL = 8
FEWEST = 3  # stable repetitions below which nothing is concluded
TOLERANCE = 0.05  # median change up to which a model holds, unless its own measurements were noisier
EFFORT = Effort(limit_s=3.0)


@dataclass(frozen=True)
class Check:
    """What measuring some of a model's networks again says of the model.

    Attributes:
        networks: how many were stable again.
        change: median of now ÷ then, minus 1: how much slower the device has become.
        spread: median distance of a network's now ÷ then from the median one: 0 if all changed alike.
        tolerance: of both, up to which the model holds.
        arithmetic: how much longer plain arithmetic takes than when the model was measured.
        repeated: the new measurements.
    """

    networks: int
    change: float
    spread: float
    tolerance: float
    arithmetic: float
    repeated: tuple[Measurement, ...]

    @property
    def holds(self) -> bool:
        """Whether the device is as fast as when the model was measured, for all networks alike."""
        return abs(self.change) <= self.tolerance and self.spread <= self.tolerance


def check_model(
    model: LatencyModel,
    device: Device,
    *,
    networks: int = HANDFUL,
    effort: Effort = EFFORT,
    on_slice: Callable[[int, Slice], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> Check:
    """Measures some of the model's networks again, from the fastest to the slowest, and compares.

    Raises:
        ModelError: the model was made for another device or runtime, or too few repetitions are stable.
    """
    with device.reserve(f"checking the latency model of {model.target}", on_wait=on_wait):
        model.require(device.describe(), model.settings)
        before = _spread_out([one for one in model.measurements if one.trusted], networks)
        models = [stand_in(lower(one.architecture), model.settings.precision) for one in before]
        timings = device.measure(models, settings=model.settings, effort=effort, on_slice=on_slice)
    repeated = [Measurement(one.architecture, timing) for one, timing in zip(before, timings, strict=True)]
    pairs = [(then, now) for then, now in zip(before, repeated, strict=True) if now.trusted]
    if len(pairs) < FEWEST:
        raise ModelError(
            f"to check the latency model of {model.target!r} at least {FEWEST} networks must be measured stably again, got "
            f"{len(pairs)} of {len(before)}: stop what else runs on the device"
        )
    ratios = [now.ms / then.ms for then, now in pairs]
    middle = statistics.median(ratios)
    return Check(
        networks=len(pairs),
        change=middle - 1,
        spread=statistics.median(abs(ratio / middle - 1) for ratio in ratios),
        tolerance=max(TOLERANCE, model.noise_p95),
        arithmetic=_quiet_change([then.timing for then, _ in pairs], [now.timing for _, now in pairs]),
        repeated=tuple(now for _, now in pairs),
    )


def recalibrate(model: LatencyModel, check: Check, *, target: Target, folder: Path | None = None) -> LatencyModel:
    """The model at the device's present speed: old measurements are scaled by the change, new ones replace theirs, all are used.

    Those that a profile left beside the model and that it was not fitted to yet are among them. Model and measurements are saved;
    the raw nanoseconds stay what they were. Whoever calls this should still have the device that was checked for himself, so that
    nothing is measured meanwhile.
    """
    repeated = {one.architecture.fingerprint: one for one in check.repeated}
    path = model_path(target.name, model.provenance, target.settings, folder=folder)
    log = path.with_suffix(".jsonl")
    every = {one.architecture.fingerprint: one for one in (*model.measurements, *read_measurements(log))}
    updated = tuple(
        repeated.get(fingerprint) or replace(one, scale=one.scale * (1 + check.change))
        for fingerprint, one in every.items()
    )
    renewed = fit_model(target, model.provenance, updated)
    write_measurements(log, renewed.measurements)
    renewed.save(path)
    return renewed


def _quiet_change(before: Sequence[Timing], now: Sequence[Timing]) -> float:
    """How much longer the arithmetic probe takes at full speed."""
    then_ns, now_ns = (
        quiet_probe(part.probe_ns for one in timings for part in one.slices) for timings in (before, now)
    )
    return now_ns / then_ns - 1


def _spread_out(measurements: Sequence[Measurement], count: int) -> list[Measurement]:
    """Some measurements at even distances in the order of their milliseconds."""
    ordered = sorted(measurements, key=lambda one: one.ms)
    count = min(count, len(ordered))
    return [ordered[(2 * index + 1) * len(ordered) // (2 * count)] for index in range(count)]

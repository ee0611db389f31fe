"""Profiling a target: networks are measured on its device, a latency model is fitted, and its error on unseen ones is told."""

import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from latency.choosing import Queue
from latency.device import Device, settled, timings_of
from latency.errors import DeviceError, ModelError
from latency.features import measured_as, network_quantities
from latency.fitting import accuracy, cross_validate, fit
from latency.kernel_check import check_rules
from latency.model import LatencyModel, Measurement, at_one_speed
from latency.planning import kernels
from latency.provenance import Provenance
from latency.settings import Effort
from latency.stand_in import stand_in
from latency.store import model_path
from latency.target import Target
from latency.timing import Slice, now
from latency.uncertainty import Uncertainty
from searchspace.architecture import Architecture, lower
from searchspace.errors import NasError
from searchspace.files import write_atomically

JOB = 12  # networks measured side by side
FEWEST = 12  # stable measurements below which nothing is fitted
FEWEST_OF_A_KIND = 3  # networks with a kind of kernel below which it counts as not measured
EFFORT = Effort(limit_s=3.0)


@dataclass(frozen=True)
class Progress:
    """How far profiling is.

    Attributes:
        networks: measured so far, earlier runs included.
        wanted: how many there shall be, None where only the time is limited.
        seconds: since this run began.
        limit_s: of this run, None where only the number is limited.
        begun: further networks that the slices so far of those at hand amount to, as far as can be told before they settle.
    """

    networks: int
    wanted: int | None
    seconds: float
    limit_s: float | None
    begun: float = 0.0

    @property
    def done(self) -> int:
        """Networks measured, with what those at hand amount to; not more than are wanted."""
        done = int(self.networks + self.begun)
        return done if self.wanted is None else min(done, self.wanted)


def profile_target(
    target: Target,
    architectures: Iterable[Architecture],
    *,
    networks: int | None = None,
    more: int | None = None,
    limit_s: float | None = None,
    in_order: int | None = None,
    device: Device | None = None,
    effort: Effort = EFFORT,
    folder: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_wait: Callable[[str], None] | None = None,
    on_saved: Callable[[LatencyModel], None] | None = None,
) -> LatencyModel:
    """Measures networks on a target's device, fits its latency model to all that were ever measured there, and saves it.

    What is measured is appended to a file beside the model at once, so an interrupted run is continued by the next one. Where the
    run ends early, by an interrupt or because of its device, a model is fitted to what there is and saved, if that is enough.

    Args:
        target: what to profile.
        architectures: in the order to measure them; those with a trusted measurement are passed over. It may be endless if
            `networks` or `limit_s` ends it.
        networks: how many measured networks there shall be in all. Those of this number whose halves disagree, or that met the
            device while it was slow, are measured once more in the end.
        more: the same as so many beyond those there are, in place of `networks`.
        limit_s: seconds after which no further job of `JOB` networks is begun.
        in_order: how many are measured in that order before those follow that tell most (see `latency.choosing`); None for all.
        device: the opened device, if not the target's own.
        effort: how long each network is measured.
        folder: where models lie, if not in `latency.store.models_folder`.
        on_progress: called after every slice and every job.
        on_wait: called with who has the device if one must wait for it.
        on_saved: called with the model that was saved where the run ends early, before the reason is raised.

    Raises:
        TargetError: there are no rules for how the target's runtime fuses.
        ModelError: the runtime fuses otherwise than the rules say, fewer than `FEWEST` measurements are stable, or fewer networks
            are asked for.
        DeviceError: the device failed; what was measured before is kept.
    """
    target.require_modelled()
    if networks is not None and networks < FEWEST:
        raise ModelError(
            f"networks must be at least {FEWEST}, as fewer measurements make no latency model, got {networks}"
        )
    device = device or target.open()
    with device.reserve(f"profiling {target.name}", on_wait=on_wait):
        provenance = device.describe()
        path = model_path(target.name, provenance, target.settings, folder=folder)
        log = path.with_suffix(".jsonl")
        measured = before = _by_fingerprint(log)
        networks = networks if more is None else len(measured) + more
        begin = time.monotonic()
        known = {fingerprint for fingerprint, one in measured.items() if one.trusted}
        block, precision = provenance.nchwc_block, target.settings.precision
        queue = Queue(_unseen(architectures, known), in_order=in_order, nchwc_block=block, precision=precision)
        repeated: set[str] = set()

        def tell(begun: float) -> None:
            if on_progress is not None:
                on_progress(Progress(len(measured), networks, time.monotonic() - begin, limit_s, begun))

        try:
            while limit_s is None or time.monotonic() - begin < limit_s:
                room = JOB if networks is None else min(JOB, networks - len(measured))
                job = queue.take(room, [(one.architecture, one.ms) for one in measured.values()]) if room > 0 else []
                if not job:  # what did not settle has another chance: a slow phase of the device passes
                    job = [one.architecture for one in measured.values() if not one.trusted]
                    job = [one for one in job if one.fingerprint not in repeated][:JOB]
                    repeated.update(one.fingerprint for one in job)
                if not job:
                    break
                of_this_device = replace(effort, quiet_ns=_quiet_ns(measured.values()))
                found = _measure(
                    device, job, target=target, provenance=provenance, effort=of_this_device, on_share=tell
                )
                for one in found:
                    _append(log, one)
                measured = _by_fingerprint(log)
                tell(0.0)
        except (KeyboardInterrupt, DeviceError):
            measured = _by_fingerprint(log)
            if measured != before:
                with contextlib.suppress(NasError):  # too few, or no place: the reason to end is what matters
                    model = _fitted(target, provenance, measured, path)
                    if on_saved is not None:
                        on_saved(model)
            raise
        return _fitted(target, provenance, measured, path)


def _fitted(target: Target, provenance: Provenance, measured: Mapping[str, Measurement], path: Path) -> LatencyModel:
    """The model of what was measured, saved."""
    model = fit_model(target, provenance, tuple(measured.values()))
    model.save(path)
    return model


def fit_model(target: Target, provenance: Provenance, measurements: tuple[Measurement, ...]) -> LatencyModel:
    """Fits a latency model to the trusted ones of some measurements; its held-out error is that of cross-validation.

    Raises:
        ModelError: too few of them are stable.
    """
    measurements = at_one_speed(measurements)
    trusted = [one for one in measurements if one.trusted]
    if len(trusted) < FEWEST:
        raise ModelError(
            f"a latency model needs at least {FEWEST} stable measurements with few interruptions, "
            f"got {len(trusted)} of {len(measurements)}: measure more networks, and stop what else runs on the device"
        )
    block = provenance.nchwc_block
    precision = target.settings.precision
    planned = [kernels(lower(one.architecture), nchwc_block=block, precision=precision) for one in trusted]
    rows = [network_quantities(part, nchwc_block=block) for part in planned]
    kinds = Counter(name for part in planned for name in {name for kernel in part for name in measured_as(kernel)})
    ms = np.array([one.ms for one in trusted])
    weights = fit(rows, ms.tolist())
    unseen = cross_validate(rows, ms.tolist())
    return LatencyModel(
        target=target.name,
        settings=target.settings,
        provenance=provenance.measured(one.timing for one in measurements),
        weights=weights,
        measured=frozenset(name for name, count in kinds.items() if count >= FEWEST_OF_A_KIND),
        uncertainty=Uncertainty.judge(rows, ms.tolist(), weights, unseen),
        held_out=accuracy(unseen.predicted, ms),
        noise_p95=float(np.quantile([one.timing.half_difference for one in trusted], 0.95)),
        measurements=measurements,
        basis=target.basis,
        option=target.option,
    )


def report(model: LatencyModel) -> dict[str, object]:
    """What a profile is worth, as plain data."""
    return {
        "target": model.target,
        "networks": len(model.measurements),
        "device_seconds": round(sum(one.timing.device_s for one in model.measurements), 3),
        "held_out": model.held_out.as_json(),
        "noise_median": statistics.median(one.timing.half_difference for one in model.measurements if one.trusted),
        "noise_p95": model.noise_p95,
    }


def read_measurements(log: Path) -> Iterator[Measurement]:
    """The measurements in a file of lines; a last line that was cut off by an interrupt is passed over."""
    if not log.exists():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            yield Measurement.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, NasError):
            continue


def _by_fingerprint(log: Path) -> dict[str, Measurement]:
    """The measurements in a file of lines by network; of a network that was measured again, the last.

    Those of another process are among them: phones of a pool are profiled side by side.
    """
    last = {one.architecture.fingerprint: one for one in read_measurements(log)}
    return dict(zip(last, at_one_speed(last.values()), strict=True))


def _quiet_ns(measured: Iterable[Measurement]) -> int | None:
    """The arithmetic probe's nanoseconds at the device's full speed, as far as is known."""
    return next((one.timing.quiet_ns for one in measured if one.scale == 1.0), None)


def write_measurements(log: Path, measurements: Iterable[Measurement]) -> None:
    """Writes a file of measurements anew, whole or not at all."""
    write_atomically(log, "".join(json.dumps(one.as_json()) + "\n" for one in measurements).encode())


def _append(log: Path, measurement: Measurement) -> None:
    line = json.dumps(measurement.as_json()) + "\n"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab+") as file:
            if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                line = "\n" + line  # the line before was cut off
            file.write(line.encode())
    except OSError as error:
        raise NasError(f"{log}: cannot be written ({error.strerror}); measurements before this one are kept") from error


def _measure(
    device: Device,
    job: list[Architecture],
    *,
    target: Target,
    provenance: Provenance,
    effort: Effort,
    on_share: Callable[[float], None],
) -> Iterator[Measurement]:
    """Measures some networks side by side; the first one's kernels are compared with what the runtime makes of it.

    `on_share` hears with each slice how many networks those so far amount to, if all settle as soon as they may.
    """
    graphs = [lower(architecture) for architecture in job]
    precision = target.settings.precision
    models = [stand_in(graph, precision) for graph in graphs]
    optimized = device.optimize(models[0], settings=target.settings)
    if found := check_rules(graphs[0], optimized, nchwc_block=provenance.nchwc_block, precision=precision):
        raise ModelError(
            f"ONNX Runtime {provenance.runtime} executes other kernels on {target.name!r} than the rules of the latency model "
            f"say, so it cannot be fitted: {'; '.join(found[:3])}"
        )
    taken: list[list[Slice]] = [[] for _ in job]
    date = now()

    def keep(index: int, part: Slice) -> None:
        taken[index].append(part)
        on_share(sum(min(1.0, len(slices) / (effort.processes * effort.slices)) for slices in taken))

    def restart() -> None:
        for slices in taken:
            slices.clear()

    try:
        timings = device.measure(
            models,
            settings=target.settings,
            effort=effort,
            on_slice=keep,
            on_restart=restart,
        )
    except BaseException:  # also an interrupt: what is finished is kept, whyever the rest is not
        for architecture, timing in zip(job, timings_of(taken, effort, date=date), strict=True):
            if settled(timing, effort):
                yield Measurement(architecture, timing)
        raise
    for architecture, timing in zip(job, timings, strict=True):
        yield Measurement(architecture, timing)


def _unseen(architectures: Iterable[Architecture], seen: set[str]) -> Iterator[Architecture]:
    for architecture in architectures:
        if architecture.fingerprint not in seen:
            seen.add(architecture.fingerprint)
            yield architecture

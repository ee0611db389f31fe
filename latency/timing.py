"""What was measured of one network: raw nanoseconds in slices, and the figures that are read off them."""

import base64
import binascii
import bisect
import math
import statistics
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from latency.errors import ModelError, UnstableMeasurement
from latency.runner import DISTURBED, half_difference, low_ns

QUIET_SLICES = 4  # that a network must have while the device ran at full speed
QUIET_SHARE = 0.1  # of the slices measured, that a speed must have lasted for to count as the device's full one


@dataclass(frozen=True, slots=True)
class Slice:
    """Some runs taken one right after another; what came before the first kept one is dropped.

    Attributes:
        ns: nanoseconds of each run, in order, at least one.
        interrupted: positions of the runs during which the core was taken away, or during the run before.
        probe_ns: nanoseconds of a fixed piece of arithmetic beside the slice, the slower of before and after.
        process: which of the processes took it, from 0.
    """

    ns: tuple[int, ...]
    probe_ns: int
    process: int = 0
    interrupted: tuple[int, ...] = ()

    @property
    def whole_ns(self) -> tuple[int, ...]:
        """Nanoseconds of the runs that were not interrupted."""
        if not self.interrupted:
            return self.ns
        return tuple(ns for position, ns in enumerate(self.ns) if position not in self.interrupted)


@dataclass(frozen=True)
class Timing:
    """The measurement of one network on one device.

    Attributes:
        slices: everything that was measured, in the order of time; at least one.
        tolerance: relative difference up to which two halves of the slices count as agreeing.
        load: the device's load average (runnable processes) while it was measured, None where unknown.
        quiet_ns: the probe's nanoseconds at the device's full speed, from all that was measured beside it or before;
            slower slices do not count. None where that is not known: then it is the network's own fastest probe.
        date: when it was begun, ISO 8601 in UTC; None where unknown, as in files of earlier versions.
        cores: that the processes were bound to; None where they were not, or that is unknown.
    """

    slices: tuple[Slice, ...]
    tolerance: float = 0.02
    load: float | None = None
    quiet_ns: int | None = None
    date: str | None = None
    cores: tuple[int, ...] | None = None

    @cached_property
    def low_ms(self) -> float:
        """Milliseconds a run takes when nothing disturbs it; the most reproducible figure, the one models are fitted to.

        Lower quartile over the undisturbed slices of each slice's fastest run (see `latency.runner.low_ns`). Where every run
        was interrupted it is that of all runs, and the timing is not stable.
        """
        slices, probes = self._columns
        return low_ns(slices if any(slices) else [part.ns for part in self.slices], probes) / 1e6

    @cached_property
    def half_difference(self) -> float:
        """Relative difference of `low_ms` between halves of the slices: the worse of even/odd and early/late.

        Infinite where hardly any slice was taken at the device's full speed.
        """
        return half_difference(*self._columns) if self._quiet else math.inf

    @property
    def stable(self) -> bool:
        """Whether the halves agree within the tolerance."""
        return self.half_difference <= self.tolerance

    @cached_property
    def median_ms(self) -> float:
        """Median of all runs in milliseconds, disturbances included."""
        return statistics.median(self._all_ns) / 1e6

    @cached_property
    def p90_ms(self) -> float:
        """The milliseconds that nine of ten runs stay within."""
        ordered = sorted(self._all_ns)
        return ordered[min(len(ordered) - 1, 9 * len(ordered) // 10)] / 1e6

    @cached_property
    def mad_ms(self) -> float:
        """Median absolute deviation from the median, in milliseconds."""
        middle = statistics.median(self._all_ns)
        return statistics.median(abs(ns - middle) for ns in self._all_ns) / 1e6

    @property
    def runs(self) -> int:
        """How many runs were timed."""
        return len(self._all_ns)

    @property
    def interrupted(self) -> float:
        """Share of runs during which the core was taken away, or during the run before."""
        return sum(len(part.interrupted) for part in self.slices) / self.runs

    @property
    def device_s(self) -> float:
        """Seconds of device time in the timed runs."""
        return sum(self._all_ns) / 1e9

    @property
    def quiet_s(self) -> float:
        """Those of them at the device's full speed."""
        return sum(ns for part in self._at_full_speed for ns in part.ns) / 1e9

    def require_stable(self) -> "Timing":
        """This timing, if it settled.

        Raises:
            UnstableMeasurement: two halves of the slices differ by more than the tolerance.
        """
        if not self.stable:
            found = "it never ran without interruption at the device's full speed"
            if self.half_difference < math.inf:
                found = f"they differ by {self.half_difference:.1%}"
            raise UnstableMeasurement(
                f"two halves of the measurement must agree within {self.tolerance:.1%}, but {found} "
                f"in {len(self.slices)} slices of {self.device_s:.1f} s in all: "
                "stop what else runs on the device, or allow more time"
            )
        return self

    def as_json(self) -> dict[str, object]:
        """Plain data; the runs are kept to the nanosecond, compressed."""
        packed = array("q", self._all_ns)
        return {
            "runs": [len(part.ns) for part in self.slices],
            "processes": [part.process for part in self.slices],
            "probes_ns": [part.probe_ns for part in self.slices],
            "interrupted": [list(part.interrupted) for part in self.slices],
            "ns": base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode(),
            "tolerance": self.tolerance,
            "load": self.load,
            "quiet_ns": self.quiet_ns,
            "date": self.date,
            "cores": None if self.cores is None else list(self.cores),
        }

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Timing":
        """The timing that `as_json` wrote.

        Raises:
            ModelError: it is damaged.
        """
        try:
            packed = array("q")
            packed.frombytes(zlib.decompress(base64.b64decode(plain["ns"], validate=True)))
            ends = [0]
            for count in plain["runs"]:
                ends.append(ends[-1] + count)
            if ends[-1] != len(packed) or min(plain["runs"]) < 1:
                raise ValueError(f"{len(packed)} runs in slices of {plain['runs']}")
            slices = tuple(
                Slice(tuple(packed[start:end]), probe, process, tuple(interrupted))
                for start, end, probe, process, interrupted in zip(
                    ends[:-1], ends[1:], plain["probes_ns"], plain["processes"], plain["interrupted"], strict=True
                )
            )
            cores = plain.get("cores")
            return Timing(
                slices,
                plain["tolerance"],
                plain["load"],
                plain.get("quiet_ns"),
                date=plain.get("date"),
                cores=None if cores is None else tuple(cores),
            )
        except (KeyError, TypeError, ValueError, binascii.Error, zlib.error) as error:
            raise ModelError(f"a stored measurement is damaged ({error}): measure again") from error

    @cached_property
    def _all_ns(self) -> list[int]:
        return [ns for part in self.slices for ns in part.ns]

    @cached_property
    def _quiet(self) -> tuple[Slice, ...]:
        """The slices at the device's full speed; none where they are too few to tell."""
        found = self._at_full_speed
        return found if self.quiet_ns is None or len(found) >= QUIET_SLICES else ()

    @cached_property
    def _at_full_speed(self) -> tuple[Slice, ...]:
        limit = math.inf if self.quiet_ns is None else DISTURBED * self.quiet_ns
        return tuple(part for part in self.slices if part.probe_ns <= limit)

    @cached_property
    def _columns(self) -> tuple[list[tuple[int, ...]], list[int]]:
        parts = self._quiet or self.slices
        return [part.whole_ns for part in parts], [part.probe_ns for part in parts]


def now() -> str:
    """The present for `Timing.date`: ISO 8601, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def quiet_probe(probes: Iterable[int]) -> int:
    """The probe's nanoseconds at a device's full speed: the fastest that lasted, within `DISTURBED`, for `QUIET_SHARE` of slices.

    A core may be slowed down for minutes, by others on a shared machine or by heat: a network that was measured only then has
    slices that agree with each other, and are slow. One lucky probe, or a short burst of a higher clock, is not full speed.

    Args:
        probes: of all slices of networks that were measured side by side, at least one.
    """
    ordered = sorted(probes)
    wanted = math.ceil(QUIET_SHARE * len(ordered))
    return next(one for one in ordered if bisect.bisect_right(ordered, DISTURBED * one) >= wanted)


def held_to_one_speed(timings: Sequence[Timing]) -> list[Timing]:
    """Timings of one device, held to its full speed as all of them together tell it.

    Networks measured side by side know only the minute they were measured in: a slow phase that outlasts it looks like full
    speed to them, and networks of different minutes cannot be compared.
    """
    probes = [part.probe_ns for timing in timings for part in timing.slices]
    quiet_ns = quiet_probe(probes) if probes else None
    return [replace(timing, quiet_ns=quiet_ns) for timing in timings]

"""Whether the finalists' measured times say that the latency model was off, and what the candidates' latencies are then.

A reference, one of the networks that the model was fitted to, is measured among the finalists: it tells a device that has become
slower or faster as a whole from a model that errs on these networks.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from latency.model import LatencyModel, Measurement
from latency.stand_in import stand_in
from latency.timing import Timing
from nas.finalists import Finalist
from nas.outcomes import Tried
from searchspace.architecture import lower

FEWEST = 3  # finalists that must be measured stably before the model is doubted


@dataclass(frozen=True)
class Reference:
    """A network that the latency model was fitted to.

    Attributes:
        measurement: of then.
        model: ONNX bytes of a network of its shape.
        target: what ``--target`` takes to mean the model's.
    """

    measurement: Measurement
    model: bytes
    target: str

    def change(self, now: Timing) -> float | None:
        """How much slower it is now, as a share; None if it was not measured stably."""
        return now.low_ms / self.measurement.ms - 1 if now.stable else None


def reference(model: object) -> Reference | None:
    """The network of median latency among those a model was fitted to; None where there are none."""
    trusted = [one for one in model.measurements if one.trusted] if isinstance(model, LatencyModel) else []
    if not trusted or not isinstance(model, LatencyModel):
        return None
    middle = sorted(trusted, key=lambda one: one.ms)[len(trusted) // 2]
    return Reference(
        middle, stand_in(lower(middle.architecture), model.settings.precision), model.option or model.target
    )


@dataclass(frozen=True)
class Correction:
    """By what predictions are multiplied.

    Attributes:
        factor: median over the finalists of measured ÷ predicted milliseconds.
        outside: finalists that were measured outside their interval.
        measured: finalists that were measured stably.
        reference_change: how much slower the reference is than when the model was fitted, as a share; None: not known.
        target: what ``--target`` takes to mean the reference's; None: there is none.
    """

    factor: float
    outside: int
    measured: int
    reference_change: float | None
    target: str | None = None

    def of(self, tried: Tried) -> Tried:
        """A candidate with its latency corrected."""
        return dataclasses.replace(
            tried,
            predicted_ms=tried.predicted_ms * self.factor,
            low_ms=tried.low_ms * self.factor,
            high_ms=tried.high_ms * self.factor,
        )

    def __str__(self) -> str:
        text = (
            f"the latency model was off: {self.outside} of {self.measured} finalists were measured outside their intervals, "
            f"in the median at {self.factor:.2f} of the prediction; predictions are corrected by that"
        )
        if self.reference_change is None:
            return text
        command = f"nas profile --target {self.target} --recalibrate"
        return f"{text} (a network it was fitted to is {self.reference_change:+.0%} now: `{command}`)"


def correction(
    finalists: Sequence[Finalist], reference_change: float | None, *, target: str | None = None
) -> Correction | None:
    """What predictions must be multiplied by; None if most finalists were within their intervals, or too few were measured."""
    measured = [
        (one.measured.low_ms, one.tried) for one in finalists if one.measured is not None and one.measured.stable
    ]
    outside = sum(not tried.low_ms <= ms <= tried.high_ms for ms, tried in measured)
    if len(measured) < FEWEST or outside <= len(measured) / 2:
        return None
    factor = statistics.median(ms / tried.predicted_ms for ms, tried in measured)
    return Correction(factor, outside, len(measured), reference_change, target)

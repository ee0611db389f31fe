"""Holding a latency model to what the device says: predictions times one factor, corrected at every measurement."""

import math
from dataclasses import dataclass

from latency.device import Device
from latency.errors import ModelError, UnmeasuredKernel
from latency.settings import Effort, RuntimeSettings
from latency.stand_in import stand_in
from latency.timing import Timing
from nas.checkpoint import Checkpoint
from nas.deployment import onnx_model
from nas.prediction import Model
from nas.proposals import Predict
from searchspace.architecture import Architecture, lower

EFFORT = Effort(processes=2, slices=10, limit_s=10.0)
TOLERATED = 0.03
"""Relative difference between device and prediction up to which it counts as noise."""
TRUSTED = 0.5
"""Relative difference beyond which the model is no guide any more."""


@dataclass(frozen=True)
class Calibrated:
    """A latency model times `factor`: what a device measured of a network ÷ what the model said of it."""

    model: Model
    factor: float = 1.0

    @property
    def predict(self) -> Predict:
        """Function of an architecture: milliseconds; infinite where a kernel of it was never measured."""

        def predict(architecture: Architecture) -> float:
            try:
                return self.factor * self.model.predict(architecture).ms
            except UnmeasuredKernel:
                return math.inf

        return predict

    def interval(self, architecture: Architecture) -> tuple[float, float]:
        """Milliseconds that most networks predicted alike lie between."""
        found = self.model.predict(architecture)
        return self.factor * found.low_ms, self.factor * found.high_ms

    def corrected(
        self, architecture: Architecture, measured_ms: float, *, tolerated: float = TOLERATED
    ) -> "Calibrated":
        """The same, right on a network that was measured; unchanged where the relative difference is `tolerated` as noise.

        Raises:
            ModelError: the difference is beyond what a factor can mend.
        """
        raw_ms = self.model.predict(architecture).ms
        apart = measured_ms / (self.factor * raw_ms)
        if not 1 / (1 + TRUSTED) <= apart <= 1 + TRUSTED:
            raise ModelError(
                f"prediction and device must agree within {TRUSTED:.0%} to trim by, but the model says "
                f"{self.factor * raw_ms:.3g} ms and the device {measured_ms:.3g} ms: profile the target with such "
                "networks, then run the same command with another --out"
            )
        return self if abs(apart - 1) <= tolerated else Calibrated(self.model, measured_ms / raw_ms)


def measure(device: Device, checkpoint: Checkpoint, settings: RuntimeSettings) -> Timing:
    """The network's time on the device, as it would be deployed (8-bit weights are made up: they take the same time).

    Raises:
        DeviceError: the device cannot run it.
    """
    if settings.precision == "fp32":
        model = onnx_model(checkpoint)
    else:
        model = stand_in(lower(checkpoint.architecture), settings.precision)
    (timing,) = device.measure([model], settings=settings, effort=EFFORT)
    return timing

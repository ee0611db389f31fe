"""Holding a latency model to what the device says: predictions times one factor, corrected at every measurement.

A device is not always equally fast. So a network is measured beside the start network, and its milliseconds are those that it
would have taken when the start was measured first; how far the device had moved since then is told beside them.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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

OnWait = Callable[[str], None]
"""Hears whom or what a device is waited for."""

EFFORT = Effort(processes=3, slices=12, limit_s=10.0)
TOLERATED = 0.03
"""Relative difference between device and prediction up to which it counts as noise."""
TRUSTED = 0.5
"""Relative difference beyond which the model is no guide any more."""
TRIES = 4
"""Measurements that are taken at most until one is undisturbed: settled, and as expected within what counts as noise."""
PAUSE_S = 10.0
"""Seconds between them."""
EXAMPLES = 4
"""Networks that need one kind of kernel, for it to count as measured once they are."""


@dataclass(frozen=True)
class Untold:
    """Networks whose latency a model could not tell, each with why."""

    networks: dict[Architecture, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def why(self) -> str:
        """The most frequent reason, without what to do about it."""
        ((reason, _),) = Counter(self.networks.values()).most_common(1)
        return reason.partition(": run `")[0]

    @property
    def examples(self) -> list[Architecture]:
        """A few networks for each reason: once they are measured, the others can be told."""
        found: dict[str, list[Architecture]] = {}
        for network, reason in self.networks.items():
            found.setdefault(reason, []).append(network)
        return [network for networks in found.values() for network in networks[:EXAMPLES]]


@dataclass(frozen=True)
class Calibrated:
    """A latency model times `factor`: what a device measured of a network ÷ what the model said of it."""

    model: Model
    factor: float = 1.0

    @property
    def predict(self) -> Predict:
        """Function of an architecture: milliseconds; infinite where a kernel of it was never measured."""
        return self.telling(Untold())

    def telling(self, untold: Untold) -> Predict:
        """The same, remembering in `untold` what could not be told."""

        def predict(architecture: Architecture) -> float:
            try:
                return self.factor * self.model.predict(architecture).ms
            except UnmeasuredKernel as reason:
                untold.networks.setdefault(architecture, str(reason))
                return math.inf

        return predict

    def interval(self, architecture: Architecture, *, moved: float = 0.0) -> tuple[float, float]:
        """Milliseconds that most networks predicted alike lie between.

        Args:
            architecture: the network.
            moved: how far the device itself moves between measurements, as |ln(time now ÷ time then)|.
        """
        found = self.model.predict(architecture)
        below, above = (math.hypot(math.log(end / found.ms), moved) for end in (found.low_ms, found.high_ms))
        return self.factor * found.ms * math.exp(-below), self.factor * found.ms * math.exp(above)

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
                f"{self.factor * raw_ms:.3g} ms and the device {measured_ms:.3g} ms"
            )
        return self if abs(apart - 1) <= tolerated else Calibrated(self.model, measured_ms / raw_ms)


@dataclass(frozen=True)
class Measured:
    """A measurement of a network.

    Attributes:
        ms: milliseconds, at the speed that the device had when the start network was measured first.
        drift: what the start takes now ÷ what it took then; 1 for that measurement itself.
        stable: whether all that was measured settled.
    """

    ms: float
    drift: float
    stable: bool


def measure_start(
    device: Device,
    start: Checkpoint,
    settings: RuntimeSettings,
    *,
    as_expected: Callable[[float], bool],
    on_wait: OnWait | None = None,
) -> Measured:
    """The start's time; taken again where it does not settle or is not `as_expected` (of milliseconds), then the fastest counts.

    `on_wait` is as for `Device.reserve`.

    Raises:
        DeviceError: the device cannot run it.
    """

    def look() -> Measured:
        (timing,) = _timed(device, [as_measured(start, settings)], settings, on_wait)
        return Measured(timing.low_ms, 1.0, timing.stable)

    return min(_tries(look, lambda one: as_expected(one.ms)), key=lambda one: (not one.stable, one.ms))


def measure_beside(
    device: Device,
    start: Checkpoint,
    network: Checkpoint | bytes,
    settings: RuntimeSettings,
    *,
    start_ms: float,
    expected_ms: float,
    on_wait: OnWait | None = None,
) -> Measured:
    """A network's time beside the start's.

    One that is not as expected is taken again: a disturbance that met one network more than the other passes, and a model that
    is wrong stays wrong. Then the middle one of those that settled counts.

    Args:
        device: to measure on.
        start: the untrimmed network.
        network: the trimmed one, or the model that is made of it.
        settings: how they run.
        start_ms: what the start took at first.
        expected_ms: what the network should take by the model.
        on_wait: as for `Device.reserve`.

    Raises:
        DeviceError: the device cannot run it.
    """
    models = [one if isinstance(one, bytes) else as_measured(one, settings) for one in (start, network)]

    def look() -> Measured:
        first, timing = _timed(device, models, settings, on_wait)
        drift = first.low_ms / start_ms
        return Measured(timing.low_ms / drift, drift, first.stable and timing.stable)

    def undisturbed(one: Measured) -> bool:
        return max(abs(one.drift - 1), abs(one.ms / expected_ms - 1)) <= TOLERATED

    tries = _tries(look, undisturbed)
    if tries[-1].stable and undisturbed(tries[-1]):
        return tries[-1]
    settled = [one for one in tries if one.stable] or tries
    return sorted(settled, key=lambda one: one.ms)[(len(settled) - 1) // 2]


def _tries(look: Callable[[], Measured], undisturbed: Callable[[Measured], bool]) -> list[Measured]:
    """Looks until one settled and was undisturbed, or some more have been in vain."""
    tries = [look()]
    while len(tries) < TRIES and not (tries[-1].stable and undisturbed(tries[-1])):
        time.sleep(PAUSE_S)
        tries.append(look())
    return tries


def as_measured(network: Checkpoint, settings: RuntimeSettings) -> bytes:
    """The model that is measured of a network: what ships; in 8 bits a stand-in of which every layer is in 8 bits.

    Its weights are made up, they take the same time; what ships of the last network is measured too (`nas.delivery`).
    """
    if settings.precision == "fp32":
        return onnx_model(network)
    return stand_in(lower(network.architecture), settings.precision)


def _timed(device: Device, models: Sequence[bytes], settings: RuntimeSettings, on_wait: OnWait | None) -> list[Timing]:
    """Times on the device, in turns."""
    with device.reserve("measuring", on_wait=on_wait):
        return device.measure(models, settings=settings, effort=EFFORT)

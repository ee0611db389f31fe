"""Calibration: what is measured is what ships, and only what is certain corrects the model."""

import math
from typing import Any

import onnx
import pytest

from latency.errors import ModelError, UnmeasuredKernel
from latency.settings import RuntimeSettings
from latency.timing import Slice, Timing
from nas import calibration
from nas.calibration import TRIES, Calibrated, measure_beside, measure_start
from searchspace.architecture import Architecture
from tests.nas.family import TINY, FakeModel, SlowDevice, fake_ms, trained


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretended devices need no moment of rest."""
    monkeypatch.setattr(calibration, "PAUSE_S", 0.0)


def test_within_the_noise_it_stays() -> None:
    model = Calibrated(FakeModel())
    assert model.corrected(TINY, 1.02 * fake_ms(TINY)) is model
    assert model.corrected(TINY, 1.02 * fake_ms(TINY), tolerated=0.0).factor == pytest.approx(1.02)


def test_beyond_it_the_factor_makes_it_right() -> None:
    model = Calibrated(FakeModel()).corrected(TINY, 1.2 * fake_ms(TINY))
    assert model.predict(TINY) == pytest.approx(1.2 * fake_ms(TINY))
    assert model.interval(TINY) == pytest.approx((1.08 * fake_ms(TINY), 1.32 * fake_ms(TINY)))
    assert model.corrected(TINY, fake_ms(TINY)).factor == pytest.approx(1.0)


@pytest.mark.parametrize("times", [0.5, 1.6])
def test_too_far_off_is_refused(times: float) -> None:
    with pytest.raises(ModelError, match=r"must agree within 50% to trim by, but the model says .* and the device"):
        Calibrated(FakeModel()).corrected(TINY, times * fake_ms(TINY))


class Ignorant(FakeModel):
    """Was never shown any kernel."""

    def predict(self, architecture: Architecture) -> Any:
        raise UnmeasuredKernel("never measured")


def test_what_was_never_measured_is_infinitely_slow() -> None:
    assert Calibrated(Ignorant()).predict(TINY) == math.inf
    with pytest.raises(UnmeasuredKernel):
        Calibrated(Ignorant()).corrected(TINY, 1.0)


def test_the_interval_knows_how_far_the_device_moves() -> None:
    low, high = Calibrated(FakeModel()).interval(TINY, moved=math.log(1.2))
    assert low < fake_ms(TINY) / 1.2 < 0.9 * fake_ms(TINY)
    assert high > 1.2 * fake_ms(TINY)


class Recording(SlowDevice):
    """Remembers the models it was given, and takes `times` as long from measurement to measurement, then as usual."""

    def __init__(self, *times: float) -> None:
        super().__init__()
        self.times = list(times)

    def measure(self, models: Any, **options: Any) -> list[Timing]:
        self.models = models
        times = self.times.pop(0) if self.times else 1.0
        found = super().measure(models, **options)
        return [Timing(tuple(Slice(tuple(round(times * ns) for ns in part.ns), part.probe_ns) for part in one.slices))
                for one in found]  # fmt: skip


def test_a_network_is_measured_at_the_speed_that_the_start_was() -> None:
    device, settings = Recording(*[1.3] * TRIES), RuntimeSettings()
    found = measure_beside(device, trained(), trained(), settings, start_ms=fake_ms(TINY), expected_ms=fake_ms(TINY))
    assert found.ms == pytest.approx(fake_ms(TINY), rel=1e-3)
    assert found.drift == pytest.approx(1.3, rel=1e-3)
    assert not device.times, "a disturbed device is looked at several times"


def test_a_disturbed_look_does_not_count() -> None:
    device, settings = Recording(1.3, 1.2), RuntimeSettings()
    assert measure_beside(
        device, trained(), trained(), settings, start_ms=fake_ms(TINY), expected_ms=fake_ms(TINY)
    ).drift == pytest.approx(1.0, 1e-3)
    device = Recording(1.4, 1.3, 1.1, 1.2)
    found = measure_start(device, trained(), settings, as_expected=lambda ms: ms <= fake_ms(TINY))
    assert found.ms == pytest.approx(1.1 * fake_ms(TINY), rel=1e-3)
    device = Recording(1.0, 0.5)
    found = measure_start(device, trained(), settings, as_expected=lambda ms: True)
    assert found.ms == pytest.approx(fake_ms(TINY), rel=1e-3)
    assert device.times, "once is enough where all is as expected"


class Unlucky(SlowDevice):
    """Something disturbs the second network so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    def measure(self, models: Any, **options: Any) -> list[Timing]:
        first, second = super().measure(models, **options)
        self.left -= 1
        if self.left < 0:
            return [first, second]
        slices = (Slice(tuple(2 * ns for ns in part.ns), part.probe_ns) for part in second.slices)
        return [first, Timing(tuple(slices))]


@pytest.mark.parametrize(("times", "factor"), [(1, 1.0), (TRIES - 1, 1.0), (TRIES, 2.0)])
def test_only_what_stays_unexpected_is_believed(times: int, factor: float) -> None:
    ms, device = fake_ms(TINY), Unlucky(times)
    found = measure_beside(device, trained(), trained(), RuntimeSettings(), start_ms=ms, expected_ms=ms)
    assert found.ms == pytest.approx(factor * ms, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_model_that_is_measured_has_the_targets_precision(precision: Any) -> None:
    device = Recording()
    measure_beside(device, trained(), trained(), RuntimeSettings(precision=precision), start_ms=1.0, expected_ms=1.0)
    kinds = {node.op_type for node in onnx.load_from_string(device.models[0]).graph.node}
    assert ("QuantizeLinear" in kinds) == (precision == "int8")

"""Calibration: what is measured is what ships, and only what is certain corrects the model."""

import math
from typing import Any

import onnx
import pytest

from latency.errors import ModelError, UnmeasuredKernel
from latency.settings import RuntimeSettings
from latency.timing import Timing
from nas.calibration import Calibrated, measure
from searchspace.architecture import Architecture
from tests.nas.family import TINY, FakeModel, SlowDevice, fake_ms, trained


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


class Recording(SlowDevice):
    """Remembers the models it was given."""

    def measure(self, models: Any, **options: Any) -> list[Timing]:
        self.models = models
        return super().measure(models, **options)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_model_that_is_measured_has_the_targets_precision(precision: Any) -> None:
    device = Recording()
    measure(device, trained(), RuntimeSettings(precision=precision))
    kinds = {node.op_type for node in onnx.load_from_string(device.models[0]).graph.node}
    assert ("QuantizeLinear" in kinds) == (precision == "int8")

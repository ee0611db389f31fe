import pytest

from latency.device import Device
from latency.fake import FakeDevice, true_ms
from latency.settings import Effort, RuntimeSettings
from tests.latency.device_conformance import DeviceConformance
from tests.latency.models import small_model


class TestFake(DeviceConformance):
    @pytest.fixture
    def device(self) -> Device:
        return FakeDevice()


def test_without_noise_it_measures_the_true_latency():
    [timing] = FakeDevice().measure([small_model()], settings=RuntimeSettings())
    assert timing.low_ms == pytest.approx(true_ms(small_model()), rel=1e-4)
    assert timing.half_difference == 0


def test_noise_only_adds_time_and_follows_the_seed():
    def measure(seed):
        return FakeDevice(noise=0.5, seed=seed).measure([small_model()], settings=RuntimeSettings())[0]

    assert measure(1) == measure(1) != measure(2)
    assert measure(1).low_ms > true_ms(small_model())


def test_much_noise_is_not_stable():
    effort = Effort(processes=1, slices=4)
    [timing] = FakeDevice(noise=5.0).measure([small_model()], settings=RuntimeSettings(), effort=effort)
    assert not timing.stable

import pytest

from latency.comparison import compare
from latency.fake import FakeDevice
from latency.settings import Effort, RuntimeSettings
from latency.timing import Slice, Timing
from tests.latency.models import small_model


def measured(*models: bytes, seed: int = 0, noise: float = 0.05) -> list[Timing]:
    effort = Effort(processes=3, slices=12)
    return FakeDevice(noise=noise, seed=seed).measure(models, settings=RuntimeSettings(), effort=effort)


def test_a_network_is_as_fast_as_itself():
    [timing] = measured(small_model())
    found = compare(timing, timing)
    assert (found.ratio, found.low, found.high) == (1.0, 1.0, 1.0)


def test_the_ratio_is_that_of_the_undisturbed_times():
    small, large = measured(small_model(), small_model(channels=32), noise=0.0)
    found = compare(large, small)
    assert found.ratio == pytest.approx(large.low_ms / small.low_ms)
    assert found.low == found.ratio == found.high


def test_the_interval_holds_the_true_ratio_nearly_always():
    models = (small_model(), small_model(channels=24))
    small, large = measured(*models, noise=0.0)
    truth = large.low_ms / small.low_ms
    inside = 0
    for seed in range(40):
        base, timing = measured(*models, seed=seed)
        found = compare(timing, base)
        assert found.low <= found.ratio <= found.high
        inside += found.low <= truth <= found.high
    assert inside >= 34


def test_networks_that_were_always_interrupted_still_give_a_ratio():
    one = Timing((Slice((1000,), 20_000, 0, (0,)),) * 8)
    two = Timing((Slice((2000,), 20_000, 0, (0,)),) * 8)
    assert compare(two, one).ratio == 2.0


def test_more_noise_widens_the_interval():
    calm, noisy = (compare(*measured(small_model(), small_model(channels=24), noise=noise)) for noise in (0.01, 0.3))
    assert calm.high - calm.low < noisy.high - noisy.low

"""A model is checked against its device as it is now, and brought up to date."""

import dataclasses
from pathlib import Path

import pytest

from latency.errors import ModelError
from latency.fake import FakeDevice
from latency.features import measured_as
from latency.model import LatencyModel
from latency.planning import kernels
from latency.profiling import profile_target, read_measurements
from latency.renewal import HANDFUL, check_model, recalibrate
from latency.samples import varied_architectures
from latency.target import load_target
from latency.timing import Slice, Timing
from searchspace.architecture import Architecture, lower
from tests.latency.profiled import QUICK, fake_model

HOST = load_target("host")


class ChangedDevice(FakeDevice):
    """Each network takes `factors[i % n]` times what it took before."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = factors

    def measure(self, models, **options):
        timings = super().measure(models, **options)
        return [
            Timing(
                tuple(
                    Slice(tuple(round(ns * self.factors[index % len(self.factors)]) for ns in part.ns), part.probe_ns)
                    for part in timing.slices
                )
            )
            for index, timing in enumerate(timings)
        ]


@pytest.mark.parametrize(
    ("factors", "holds"),
    [((1.0,), True), ((1.03,), True), ((0.97, 1.02), True), ((1.2,), False), ((0.8,), False), ((0.8, 1.25), False)],
)
def test_a_model_holds_as_long_as_its_networks_take_as_long_as_before(factors, holds):
    found = check_model(fake_model(), ChangedDevice(*factors), effort=QUICK)
    assert found.networks == HANDFUL
    assert found.holds == holds


def test_the_change_is_told():
    found = check_model(fake_model(), ChangedDevice(1.3), effort=QUICK)
    assert found.change == pytest.approx(0.3, rel=1e-3)
    assert found.spread == pytest.approx(0.0, abs=1e-4)


def test_the_repeated_networks_span_the_measured_ones():
    model = fake_model()
    ms = sorted(one.ms for one in model.measurements)
    repeated = [one.ms for one in check_model(model, FakeDevice(), effort=QUICK).repeated]
    assert repeated == sorted(repeated)
    assert repeated[0] < ms[len(ms) // 8]
    assert repeated[-1] > ms[7 * len(ms) // 8 - 1]


def test_another_device_is_refused_before_anything_is_measured():
    model = fake_model()
    elsewhere = dataclasses.replace(model, provenance=dataclasses.replace(model.provenance, cpu="another"))
    with pytest.raises(ModelError, match="measured with cpu 'another'"):
        check_model(elsewhere, FakeDevice())


def test_nothing_is_concluded_from_unstable_measurements():
    with pytest.raises(ModelError, match=r"at least 3 networks must be measured stably again, got \d of 8: stop what"):
        check_model(fake_model(), FakeDevice(noise=20.0), effort=QUICK)


def knows(model: LatencyModel, architecture: Architecture) -> bool:
    found = kernels(lower(architecture), nchwc_block=model.provenance.nchwc_block)
    return all(name in model.measured for kernel in found for name in measured_as(kernel))


def test_recalibration_follows_the_device(tmp_path: Path):
    def profile() -> LatencyModel:
        return profile_target(
            HOST, varied_architectures(0), networks=36, device=FakeDevice(), effort=QUICK, folder=tmp_path
        )

    before, slower = profile(), ChangedDevice(1.25)
    found = check_model(before, slower, effort=QUICK)
    renewed = recalibrate(before, found, target=HOST, folder=tmp_path)
    some = next(one.architecture for one in before.measurements if knows(before, one.architecture))
    assert renewed.predict_ms(some) == pytest.approx(1.25 * before.predict_ms(some), rel=0.01)
    assert renewed.held_out.median_error == pytest.approx(before.held_out.median_error, abs=0.01)
    assert check_model(renewed, slower, effort=QUICK).holds
    [path] = tmp_path.glob("*.json")
    assert LatencyModel.load(path) == renewed
    again = {one.architecture.fingerprint: one for one in read_measurements(path.with_suffix(".jsonl"))}
    assert again == {one.architecture.fingerprint: one for one in renewed.measurements}
    assert sum(one.scale == 1.0 for one in again.values()) == HANDFUL
    assert profile().predict_ms(some) == pytest.approx(renewed.predict_ms(some))  # nothing more to measure


def test_what_an_interrupted_profile_left_is_kept_and_used(tmp_path: Path):
    """Networks that were measured after the model was fitted: recalibration scales them like the others, and loses none."""

    def profile(networks: int) -> LatencyModel:
        return profile_target(
            HOST, varied_architectures(0), networks=networks, device=FakeDevice(), effort=QUICK, folder=tmp_path
        )

    before = profile(36)
    [path] = tmp_path.glob("*.json")
    kept = path.read_bytes()
    later = profile(48)
    path.write_bytes(kept)  # as if it had been interrupted before the model was fitted
    found = check_model(before, ChangedDevice(1.25), effort=QUICK)
    renewed = recalibrate(before, found, target=HOST, folder=tmp_path)
    assert len(renewed.measurements) == 48
    assert list(read_measurements(path.with_suffix(".jsonl"))) == list(renewed.measurements)
    then = {one.architecture.fingerprint: one.ms for one in later.measurements}
    for one in renewed.measurements:
        assert one.ms == pytest.approx(1.25 * then[one.architecture.fingerprint], rel=1e-3)

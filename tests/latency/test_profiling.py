import contextlib
import dataclasses
import itertools
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from latency import adb
from latency.device import settled
from latency.errors import DeviceError, DeviceUnfit, DeviceUnreachable, ModelError
from latency.fake import FakeDevice
from latency.features import measured_as
from latency.model import LatencyModel
from latency.planning import kernels
from latency.profiling import JOB, profile_target, read_measurements, report
from latency.published.model import shipped_model
from latency.samples import varied_architectures
from latency.settings import Effort
from latency.store import find_predictor, load_model, model_path, models_folder
from latency.target import load_target
from latency.timing import Slice, Timing
from searchspace.architecture import lower
from tests.latency.profiled import QUICK, fake_model

HOST = load_target("host")


class CountingDevice(FakeDevice):
    """Counts the networks it measures, and fails when it has measured `lasts`."""

    def __init__(self, lasts: int = 10**6, **options: float) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.measured = 0
        self.lasts = lasts

    def measure(self, models, **options):
        if self.measured + len(models) > self.lasts:
            raise DeviceError("fake: the cable was pulled")
        self.measured += len(models)
        return super().measure(models, **options)


def profile(folder: Path, device: FakeDevice, networks: int, seed: int = 0, **options: object) -> LatencyModel:
    return profile_target(
        HOST, varied_architectures(seed), networks=networks, device=device, effort=QUICK, folder=folder, **options
    )


def test_an_interrupted_profile_is_continued(tmp_path):
    with pytest.raises(DeviceError, match="cable"):
        profile(tmp_path, CountingDevice(lasts=2 * JOB), 40)
    [log] = tmp_path.glob("*.jsonl")
    assert len(list(read_measurements(log))) == 2 * JOB
    device = CountingDevice()
    model = profile(tmp_path, device, 40)
    assert device.measured == 40 - 2 * JOB
    assert len(model.measurements) == 40
    assert model == profile(tmp_path / "at-once", CountingDevice(), 40)


@pytest.mark.parametrize("reason", [DeviceUnreachable, KeyboardInterrupt])
def test_what_was_measured_before_the_end_makes_a_model(tmp_path, reason):
    class Ending(CountingDevice):
        def measure(self, models, **options):
            if self.measured == self.lasts:
                raise reason("fake: the end")
            return super().measure(models, **options)

    saved = []
    with pytest.raises(reason):
        profile(tmp_path, Ending(lasts=2 * JOB), 40, on_saved=saved.append)
    [path] = tmp_path.glob("*.json")
    assert [LatencyModel.load(path)] == saved
    assert len(saved[0].measurements) == 2 * JOB
    path.unlink()
    with pytest.raises(reason):  # nothing new is no reason to fit again
        profile(tmp_path, Ending(lasts=0), 40, on_saved=saved.append)
    assert len(saved) == 1
    assert not path.exists()


def test_fewer_networks_than_make_a_model_are_refused_at_once(tmp_path):
    device = object()  # has nothing that a device has
    with pytest.raises(ModelError, match=r"networks must be at least 12, .*, got 5"):
        profile(tmp_path, device, 5)


def test_a_model_keeps_when_and_on_which_cores_it_was_measured(tmp_path):
    class Later(FakeDevice):
        """A day later with every job, on the other core."""

        jobs = 0

        def measure(self, models, **options):
            self.jobs += 1
            date = f"2026-01-0{4 - self.jobs}T00:00:00+00:00"
            return [
                dataclasses.replace(one, date=date, cores=(self.jobs,)) for one in super().measure(models, **options)
            ]

    found = profile(tmp_path, Later(), 2 * JOB).provenance
    assert (found.date, found.bound, found.batch) == ("2026-01-02T00:00:00+00:00", (1, 2), 1)
    [path] = tmp_path.glob("*.json")
    kept = LatencyModel.load(path)
    assert kept.provenance.as_json() == found.as_json()
    plain = json.loads(path.read_text())
    for key in ("date", "bound", "batch"):
        del plain["provenance"][key]
    for one in plain["measurements"]:
        del one["timing"]["date"], one["timing"]["cores"]
    path.write_text(json.dumps(plain))  # as an earlier version wrote it
    old = LatencyModel.load(path)
    assert (old.provenance.date, old.provenance.bound, old.provenance.batch) == (None, None, 1)
    assert old.measurements[0].timing.date is None
    assert old.weights == kept.weights


class LeavingDevice(FakeDevice):
    """Goes away in the middle of a job, when all but one of its networks have all of their slices."""

    reason: type[BaseException] = DeviceUnreachable

    def measure(self, models, *, on_slice=None, **options):
        def pass_on(index, part):
            if index == len(models) - 1:
                raise self.reason("fake: the connection broke")
            on_slice(index, part)

        return super().measure(models, on_slice=pass_on, **options)


@pytest.mark.parametrize("reason", [DeviceUnreachable, DeviceUnfit, DeviceError, KeyboardInterrupt])
def test_what_was_finished_when_the_job_ended_is_kept_whyever_it_did(tmp_path, monkeypatch, reason):
    monkeypatch.setattr(LeavingDevice, "reason", reason)
    with pytest.raises(reason):
        profile(tmp_path, LeavingDevice(), 40)
    [log] = tmp_path.glob("*.jsonl")
    kept = list(read_measurements(log))
    assert len(kept) == JOB - 1
    assert all(one.trusted for one in kept)
    device = CountingDevice()
    assert list(profile(tmp_path, device, 40).measurements[: len(kept)]) == kept
    assert device.measured == 40 - len(kept)


def test_slow_networks_are_finished_with_fewer_slices():
    def parts(ms: float, count: int, *processes: int) -> list[Slice]:
        return [Slice((round(1e6 * ms),), 20_000, process) for process in processes for _ in range(count)]

    effort = Effort(processes=2, slices=8, tolerance=0.02, limit_s=3.0)

    def enough(slices: list[Slice]) -> bool:
        return settled(Timing(tuple(slices), effort.tolerance), effort)

    assert enough(parts(1.0, 8, 0, 1))
    assert not enough(parts(1.0, 8, 0))
    assert not enough(parts(1.0, 7, 0, 1))
    # 200 ms of each slice are kept, 400 ms it takes: 1.6 s in each process
    assert enough(parts(200.0, 4, 0, 1))
    assert not enough(parts(200.0, 2, 0, 1))
    assert not enough(parts(200.0, 4, 0) + parts(300.0, 4, 1))  # halves that do not agree
    assert enough(parts(900.0, 2, 0) + parts(1300.0, 2, 1))  # nor do these, but their time is over
    assert not enough([])


class CoolingDevice(LeavingDevice):
    """Drops what it took at first, because it was hot, or goes on as another one."""

    def measure(self, models, *, on_slice=None, on_restart=None, **options):
        for index in range(len(models)):
            on_slice(index, Slice((10**9,) * 3, 20_000))
        on_restart()
        return super().measure(models, on_slice=on_slice, **options)


def test_slices_that_the_device_drops_are_not_kept_when_it_goes_away(tmp_path):
    with pytest.raises(DeviceUnreachable):
        profile(tmp_path, CoolingDevice(), 40)
    [log] = tmp_path.glob("*.jsonl")
    kept = list(read_measurements(log))
    assert len(kept) == JOB - 1
    assert all(10**9 not in part.ns for one in kept for part in one.timing.slices)


class HandedOnDevice(FakeDevice):
    """Whenever it is given back, somebody else profiles it further, into the same folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.networks = folder, 12

    @contextlib.contextmanager
    def reserve(self, purpose, *, on_wait=None):
        yield
        self.networks += 12
        profile(self.folder, FakeDevice(), self.networks)


def test_the_better_model_of_somebody_who_profiles_next_is_not_written_over(tmp_path):
    device = HandedOnDevice(tmp_path)
    profile(tmp_path, device, 12)
    [path] = tmp_path.glob("*.json")
    assert len(LatencyModel.load(path).measurements) == device.networks > 12


class TwinDevice(FakeDevice):
    """One of two phones that are profiled at the same time: the other one's measurements arrive while it is at work."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def measure(self, models, **options):
        timings = super().measure(models, **options)
        profile(self.folder, FakeDevice(), 24, seed=1)
        return timings


def test_what_is_measured_meanwhile_on_another_phone_is_fitted_too(tmp_path):
    model = profile(tmp_path, TwinDevice(tmp_path), 12)
    assert len(model.measurements) == 24 + 12


def test_more_networks_later_add_to_those_there_are(tmp_path):
    profile(tmp_path, FakeDevice(), 24)
    device = CountingDevice()
    assert len(profile(tmp_path, device, 30, seed=5).measurements) == 30
    assert device.measured == 6


def test_a_line_cut_off_by_a_crash_costs_only_itself(tmp_path):
    profile(tmp_path, FakeDevice(), 24)
    [log] = tmp_path.glob("*.jsonl")
    log.write_bytes(log.read_bytes()[:-100])
    assert len(list(read_measurements(log))) == 23
    device = CountingDevice()
    assert len(profile(tmp_path, device, 24).measurements) == 24
    assert device.measured == 1
    assert len(list(read_measurements(log))) == 24


def test_time_and_finite_networks_end_it_too(tmp_path):
    seen = []
    device = CountingDevice()
    source = itertools.islice(varied_architectures(0), 20)
    profile_target(HOST, source, limit_s=60, device=device, effort=QUICK, folder=tmp_path, on_progress=seen.append)
    after_jobs = [progress for progress in seen if progress.begun == 0]
    assert [progress.networks for progress in after_jobs] == [12, 20]
    done = [progress.done for progress in seen]
    assert sorted(done) == done
    assert set(done) == set(range(21)), "every network moves the bar"
    profile_target(HOST, varied_architectures(0), limit_s=0.0, device=device, effort=QUICK, folder=tmp_path)
    assert device.measured == 20


def test_unstable_measurements_are_kept_but_not_fitted(tmp_path):
    with pytest.raises(
        ModelError,
        match=r"needs at least 12 stable measurements with few interruptions, got \d+ of 24: .*stop what else runs",
    ):
        profile(tmp_path, FakeDevice(noise=5.0), 24)
    [log] = tmp_path.glob("*.jsonl")
    kept = [one.architecture.fingerprint for one in read_measurements(log)]
    assert len(set(kept)) == 24
    assert 24 + 12 < len(kept) <= 2 * 24  # what did not settle was tried once more


def test_a_slow_phase_that_outlasts_a_job_is_recognised_and_measured_again(tmp_path):
    class Throttled(FakeDevice):
        """Every second job finds it slower, from the first to the last slice."""

        jobs = 0

        def measure(self, models, **options):
            timings = super().measure(models, **options)
            self.jobs += 1
            if self.jobs % 2:
                return [
                    Timing(
                        tuple(Slice(tuple(ns * 3 // 2 for ns in part.ns), 32_000, part.process) for part in one.slices)
                    )
                    for one in timings
                ]
            return timings

    device = Throttled()
    model = profile(tmp_path, device, 48)
    assert device.jobs == 4 + 2  # two of four were slow; of what was tried once more, the first job again
    assert model.held_out.n == 24 + 12
    straight = profile(tmp_path / "straight", FakeDevice(), 48)
    ms = {one.architecture.fingerprint: one.ms for one in straight.measurements}
    assert all(one.ms == ms[one.architecture.fingerprint] for one in model.measurements if one.trusted)


def test_measurements_on_a_busy_core_are_not_fitted(tmp_path):
    class Busy(FakeDevice):
        """Every second network is interrupted in two of three runs, and takes half as long again."""

        def __init__(self) -> None:
            super().__init__()
            self.met: list[bytes] = []

        def measure(self, models, **options):
            timings = super().measure(models, **options)
            self.met += [model for model in models if model not in self.met]
            for index in (index for index, model in enumerate(models) if self.met.index(model) % 2 == 0):
                parts = timings[index].slices
                slower = [
                    Slice(tuple(ns * 3 // 2 for ns in part.ns), part.probe_ns, part.process, (0, 1)) for part in parts
                ]
                timings[index] = Timing(tuple(slower))
            return timings

    model = profile(tmp_path, Busy(), 40)
    assert sum(one.trusted for one in model.measurements) == model.held_out.n == 20
    assert all(one.timing.stable for one in model.measurements)
    device = CountingDevice()
    source = itertools.islice(varied_architectures(0), 40)
    again = profile_target(HOST, source, device=device, effort=QUICK, folder=tmp_path)
    assert device.measured == 20
    assert again.held_out.n == 40


def test_what_was_not_stable_is_measured_again(tmp_path):
    with pytest.raises(ModelError):
        profile(tmp_path, FakeDevice(noise=5.0), 24)
    device = CountingDevice()
    source = itertools.islice(varied_architectures(0), 24)
    model = profile_target(HOST, source, device=device, effort=QUICK, folder=tmp_path)
    assert device.measured >= 24 - 11  # fewer than 12 were stable
    assert len(model.measurements) == 24
    assert all(one.timing.stable for one in model.measurements)


def test_a_kind_of_kernel_met_too_rarely_counts_as_not_measured(tmp_path):
    model = profile(tmp_path, FakeDevice(), 24)
    kinds = Counter(
        name
        for one in model.measurements
        for name in {
            name
            for kernel in kernels(lower(one.architecture), nchwc_block=model.provenance.nchwc_block)
            for name in measured_as(kernel)
        }
    )
    assert model.measured == {name for name, count in kinds.items() if count >= 3}
    assert model.measured < set(kinds)


def test_a_runtime_that_fuses_otherwise_is_refused(tmp_path):
    class Unfused(FakeDevice):
        def optimize(self, model, *, settings):
            return model

    with pytest.raises(ModelError, match="executes other kernels on 'host' than the rules"):
        profile(tmp_path, Unfused(), 24)


def test_the_report_has_what_the_command_promises():
    found = json.loads(json.dumps(report(fake_model())))
    assert set(found) >= {"target", "networks", "device_seconds", "held_out", "noise_median", "noise_p95"}
    assert set(found["held_out"]) >= {"n", "within_5", "within_10", "median_error", "p95_error", "spearman"}
    assert found["networks"] == found["held_out"]["n"] == 128
    assert found["noise_median"] == found["noise_p95"] == 0


def test_held_out_errors_are_those_of_unseen_networks():
    """The pretended device is not quite a sum of our quantities, so the error is small but not nothing."""
    held_out = fake_model().held_out
    assert 0 < held_out.median_error < 0.1
    assert held_out.spearman > 0.98


def test_models_are_found_by_target(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="'host' has no latency model yet: run `nas profile --target host`"):
        load_model(HOST)
    model = fake_model()
    path = model_path("host", model.provenance, model.settings)
    assert path.parent == models_folder() == tmp_path / "pocketnas" / "latency"
    model.save(path)
    with pytest.raises(ModelError, match="measured with cpu 'pretended'"):
        load_model(HOST)  # the pretended device is not this machine
    elsewhere = dataclasses.replace(HOST, device="board")
    assert load_model(elsewhere) == model
    threads = dataclasses.replace(elsewhere, settings=dataclasses.replace(HOST.settings, threads=2))
    with pytest.raises(ModelError, match="threads"):
        load_model(threads)
    assert model_path("host", model.provenance, threads.settings) != path


def test_varied_architectures_repeat_under_a_seed_and_have_every_kind_of_block():
    first = list(itertools.islice(varied_architectures(0), 200))
    assert first == list(itertools.islice(varied_architectures(0), 200))
    assert first != list(itertools.islice(varied_architectures(1), 200))
    kinds = {block.kind for architecture in first for block in architecture.blocks}
    assert kinds == {"conv", "separable", "uib", "fused", "fire", "mqa", "pool"}
    assert {architecture.head.kind for architecture in first} == {"classic", "mobilenet", "nin"}
    assert len({architecture.fingerprint for architecture in first}) == 200
    for architecture in first:
        assert lower(architecture).macs > 0


def test_effort_is_passed_on(tmp_path):
    model = profile_target(
        HOST,
        varied_architectures(0),
        networks=12,
        device=FakeDevice(),
        effort=Effort(processes=3, slices=5),
        folder=tmp_path,
    )
    assert {len(one.timing.slices) for one in model.measurements} == {15}


def saved(folder: Path, target: str, *, threads: int = 1) -> LatencyModel:
    """A model of a target, in the file of its name."""
    model = fake_model()
    model = dataclasses.replace(model, target=target, settings=dataclasses.replace(model.settings, threads=threads))
    model.save(model_path(target, model.provenance, model.settings, folder=folder))
    return model


@pytest.mark.parametrize("other", ["pi-kitchen", "pi-0123456789ab"])
def test_a_target_whose_name_begins_alike_lends_no_model(tmp_path, other):
    pi = dataclasses.replace(HOST, name="pi", device="ssh", option="pi.yaml")
    saved(tmp_path, other)
    with pytest.raises(ModelError, match=r"'pi' has no latency model yet: run `nas profile --target pi\.yaml`"):
        load_model(pi, folder=tmp_path)
    model = fake_model()
    path = model_path("pi", model.provenance, model.settings, folder=tmp_path)
    model.save(path)  # a file of that name, but of the host
    with pytest.raises(ModelError, match="was measured with target 'host', but here it is 'pi'"):
        load_model(pi, folder=tmp_path)
    ours = saved(tmp_path, "pi")
    assert load_model(pi, folder=tmp_path) == ours


def test_a_newer_file_that_cannot_be_read_hides_no_model(tmp_path):
    pi = dataclasses.replace(HOST, name="pi", device="ssh", option="pi.yaml")
    path = tmp_path / "pi-0123456789ab.json"
    path.write_text('{"format": 1}')
    with pytest.raises(ModelError, match=r"format must be \d+, got 1: run `nas profile --target pi\.yaml`"):
        load_model(pi, folder=tmp_path)
    ours = saved(tmp_path, "pi")
    later = model_path("pi", ours.provenance, ours.settings, folder=tmp_path).stat().st_mtime + 60
    os.utime(path, (later, later))
    assert load_model(pi, folder=tmp_path) == ours


def test_pixel_is_found_without_asking_a_phone(tmp_path, monkeypatch):
    monkeypatch.setattr(adb, "attached", lambda: pytest.fail("no phone need be looked for"))
    assert find_predictor("pixel", folder=tmp_path) == shipped_model("pixel6")
    assert find_predictor("pixel1", folder=tmp_path) == shipped_model("pixel1")
    ours = saved(tmp_path, "pixel")
    assert find_predictor("pixel", folder=tmp_path) == ours

"""Trimming holds its latency model to the device, whatever that does meanwhile."""

import itertools
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from latency.errors import DeviceError, ModelError, UnmeasuredKernel, UnstableMeasurement
from latency.timing import Slice, Timing
from nas.adaptation import netadapt
from nas.calibration import TRIES
from nas.errors import BudgetError
from nas.family import Family
from nas.steps import Step
from nas.uniform import uniform
from searchspace.architecture import Architecture
from searchspace.width import widths
from tests.nas.family import TINY, Events, FakeModel, Lost, SlowDevice, fake_ms, family, timeless
from tests.nas.test_calibration import Ignorant


def test_a_model_that_is_off_by_a_factor_is_corrected(tmp_path: Path) -> None:
    right, wrong = (netadapt(family(tmp_path / str(share), model=FakeModel(share))) for share in (1.0, 0.8))
    assert wrong[0].factor == pytest.approx(1.25, rel=1e-3)
    assert [step.fingerprint for step in right] == [step.fingerprint for step in wrong]


class Moody(SlowDevice):
    """From measurement to measurement it takes another share of the time, for all networks alike."""

    def __init__(self) -> None:
        super().__init__()
        self.times = itertools.chain([1.0], itertools.cycle((1.2, 0.9, 1.1)))

    def measure(self, models: Sequence[bytes], **options: Any) -> list[Timing]:
        times = next(self.times)
        return [
            Timing(tuple(Slice(tuple(round(times * ns) for ns in part.ns), part.probe_ns) for part in one.slices))
            for one in super().measure(models, **options)
        ]


def test_a_device_that_changes_its_speed_changes_no_choice(tmp_path: Path) -> None:
    moody = family(tmp_path / "moody", budget_ratio=0.8, measure_every=1, device=Moody())
    steps = netadapt(moody)
    calm = netadapt(family(tmp_path / "calm", budget_ratio=0.8, measure_every=1))
    assert [step.fingerprint for step in steps] == [step.fingerprint for step in calm]
    assert [step.measured_ms for step in steps] == pytest.approx([step.measured_ms for step in calm], rel=1e-3)
    assert moody.moved(steps) > 0.05
    assert all(factor == pytest.approx(1.0, rel=1e-3) for factor in (step.factor for step in steps))


class Restless(SlowDevice):
    """The last network of some measurements, which are counted from 0, does not settle, and looks fast."""

    def __init__(self, unsettled: Container[int]) -> None:
        super().__init__()
        self.unsettled, self.measurements = unsettled, itertools.count()

    def measure(self, models: Sequence[bytes], **options: Any) -> list[Timing]:
        *others, last = super().measure(models, **options)
        if next(self.measurements) in self.unsettled:
            shares = zip(last.slices, (0.4, 0.8, 0.4, 0.8), strict=True)
            last = Timing(
                tuple(Slice(tuple(round(share * ns) for ns in part.ns), part.probe_ns) for part, share in shares)
            )
        return [*others, last]


def test_a_look_that_does_not_settle_does_not_count(tmp_path: Path) -> None:
    restless, events = Restless(range(1, 1 + TRIES)), Events()
    steps = netadapt(family(tmp_path / "restless", budget_ratio=0.8, measure_every=1, device=restless, events=events))
    calm = netadapt(family(tmp_path / "calm", budget_ratio=0.8, measure_every=1))
    assert (steps[1].measured_ms, steps[1].drift) == (None, None)
    assert calm[1].measured_ms is not None
    assert "step 1: the measurement did not settle, the model stays as it is" in events.notes
    assert [step.fingerprint for step in steps] == [step.fingerprint for step in calm]
    assert steps[-1].measured_ms == calm[-1].measured_ms


@pytest.mark.parametrize("trim", [netadapt, uniform])
@pytest.mark.parametrize("first", [0, 1], ids=["start", "end"])
def test_what_does_not_settle_is_refused_until_it_does(
    tmp_path: Path, trim: Callable[[Family], list[Step]], first: int
) -> None:
    asked = {"budget_ratio": 0.8, "measure_every": 99}
    with pytest.raises(UnstableMeasurement, match=f"a measurement must settle to be believed, but {TRIES} in a row"):
        trim(family(tmp_path / "restless", **asked, device=Restless(range(first, 99))))
    assert (tmp_path / "restless" / "step-00.json").exists() == bool(first)
    steps = trim(family(tmp_path / "restless", **asked))
    assert timeless(steps) == timeless(trim(family(tmp_path / "calm", **asked)))


class Drifting(FakeModel):
    """Right about the start, ever more wrong about what is made of it."""

    def predict(self, architecture: Architecture) -> Any:
        true = FakeModel().predict(architecture)
        start = fake_ms(TINY)
        return FakeModel((true.ms / start) ** self.share).predict(architecture)


def test_a_model_that_drifts_is_corrected_until_the_device_meets_the_budget(tmp_path: Path) -> None:
    events = Events()
    steps = netadapt(family(tmp_path, budget_ratio=0.7, model=Drifting(0.3), measure_every=2, events=events))
    assert any("the model is corrected" in note for note in events.notes)
    assert steps[-1].measured_ms is not None
    assert steps[-1].measured_ms <= 0.7 * (steps[0].measured_ms or 0)
    assert steps[-1].factor > 1.05


@pytest.mark.parametrize("rule", ["accuracy", "ratio"])
def test_a_model_that_is_a_little_off_is_made_right_for_the_start(tmp_path: Path, rule: str) -> None:
    """Or a budget between what is predicted and what is measured would be above where trimming begins."""
    limit = {"budget_ratio": None, "budget_ms": 0.99 * fake_ms(TINY), "reduction": None}
    steps = netadapt(family(tmp_path, **limit, rule=rule, model=FakeModel(0.98)))
    assert steps[0].predicted_ms == pytest.approx(steps[0].measured_ms)
    assert steps[-1].ms <= 0.99 * fake_ms(TINY)
    assert all(step.predicted_ms < before.predicted_ms for before, step in itertools.pairwise(steps))


def test_a_model_that_is_no_guide_is_refused(tmp_path: Path) -> None:
    told = r"must agree within 50% to trim by, .*: run `nas profile --target host --like (\S+)`, .* with another --out"
    with pytest.raises(ModelError, match=told) as refused:
        netadapt(family(tmp_path, model=FakeModel(0.5)))
    (line,) = Path(re.search(told, str(refused.value))[1]).read_text().splitlines()  # type: ignore[index]
    assert Architecture.from_text(line) == TINY


@dataclass(frozen=True)
class Narrow(FakeModel):
    """Was never shown a layer of an odd width."""

    def predict(self, architecture: Architecture) -> Any:
        if any(width.count % 2 for width in widths(architecture)):
            raise UnmeasuredKernel(
                "the model knows every kernel but 'odd', which was never measured: run `nas profile`"
            )
        return super().predict(architecture)


@pytest.mark.parametrize("trim", [netadapt, uniform])
def test_what_the_model_cannot_tell_is_counted_and_can_be_profiled(
    tmp_path: Path, trim: Callable[[Family], list[Step]]
) -> None:
    events = Events()
    steps = trim(family(tmp_path, model=Narrow(), events=events, budget_ratio=0.75))
    assert steps[-1].ms <= 0.75 * steps[0].ms
    (told,) = [note for note in events.notes if "networks were passed over" in note]
    assert "their latency cannot be told: the model knows every kernel but 'odd'" in told
    assert f"run `nas profile --target host --like {tmp_path}/untold.jsonl` and give another --out" in told
    networks = [Architecture.from_text(line) for line in (tmp_path / "untold.jsonl").read_text().splitlines()]
    assert networks and all(any(width.count % 2 for width in widths(one)) for one in networks)


def test_an_unreachable_budget_tells_what_could_not_be_told(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"the fastest reachable is about .*networks were passed over.*'odd'"):
        netadapt(family(tmp_path, model=Narrow(), budget_ratio=None, budget_ms=1e-6))


@pytest.mark.parametrize("device", [None, SlowDevice()], ids=["published", "measured"])
def test_a_start_of_unknown_kernels_is_refused_in_the_models_words(tmp_path: Path, device: SlowDevice | None) -> None:
    with pytest.raises(UnmeasuredKernel, match="never measured"):
        netadapt(family(tmp_path, model=Ignorant(), device=device))
    assert not list(tmp_path.iterdir())


class Busy(SlowDevice):
    """Always in somebody else's hands at first."""

    def reserve(self, purpose: str, *, on_wait: Callable[[str], None] | None = None) -> Any:
        if on_wait is not None:
            on_wait("process 7, profiling")
        return super().reserve(purpose)


def test_whom_it_waits_for_is_told(tmp_path: Path) -> None:
    events = Events()
    steps = netadapt(family(tmp_path, measure_every=1, device=Busy(), events=events))
    assert events.notes.count("waiting for fake: process 7, profiling") == sum(step.drift is not None for step in steps)


def test_a_device_lost_in_the_middle(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="not there any more"):
        netadapt(family(tmp_path / "lost", budget_ratio=0.8, measure_every=1, device=Lost(2)))
    assert (tmp_path / "lost" / "step-01.json").exists()
    resumed = netadapt(family(tmp_path / "lost", budget_ratio=0.8, measure_every=1))
    assert timeless(resumed) == timeless(netadapt(family(tmp_path / "calm", budget_ratio=0.8, measure_every=1)))

"""Trimming: it chooses what brute force chooses, meets its budget, survives being killed, and says what cannot be."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from latency.errors import DeviceError, ModelError, UnmeasuredKernel, UnstableMeasurement
from latency.timing import Slice, Timing
from nas import adaptation, calibration, contest
from nas.adaptation import netadapt
from nas.calibration import TRIES
from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.data import Split
from nas.deployment import compare, onnx_model, random_checkpoint
from nas.distillation import Distillation
from nas.errors import BudgetError, TrainingError
from nas.evaluation import evaluate
from nas.family import Family
from nas.finishing import finish
from nas.recipe import Recipe
from nas.reductions import STEPS, reductions
from nas.steps import Step
from nas.teachers import checkpoint_teacher
from nas.tuning import Job, Score, Tuner, open_tuner
from nas.uniform import uniform
from searchspace.architecture import Architecture
from searchspace.blocks import Conv
from searchspace.width import drop_block, droppable, set_widths, widths
from tests.nas.family import DATA, SHORT, TINY, Events, FakeModel, SlowDevice, fake_ms, family, trained
from tests.nas.learning import mapped
from tests.nas.test_calibration import Ignorant

LONG = Recipe(images=160, batch_size=16, lr=0.02, flip=False)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Such small networks are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretended devices need no moment of rest."""
    monkeypatch.setattr(calibration, "PAUSE_S", 0.0)


def same(one: Path, other: Path) -> bool:
    states = load_checkpoint(one).state, load_checkpoint(other).state
    return states[0].keys() == states[1].keys() and all(
        torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()
    )


def timeless(steps: Sequence[Step]) -> list[dict[str, Any]]:
    return [{**vars(step), "seconds": 0} for step in steps]


# Choice


def oracle(architecture: Architecture) -> float:
    """An accuracy that every channel raises, each in its own measure."""
    weights = {"hidden": 3.0, "cout": 5.0}
    total = sum(weights[width.fields[-1].rsplit(".", 1)[1]] * width.count**0.5 for width in widths(architecture))
    return total / 100


def use_oracle(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Fine-tuning changes nothing and accuracy is the oracle's; what was to be fine-tuned is listed."""
    seen: list[Job] = []

    class Asked:
        images = 0

        def run(self, jobs: Sequence[Job], *, on_done: Callable[[int], None]) -> list[Score | None]:
            seen.extend(jobs)
            for job in jobs:
                shutil.copyfile(job.start, job.result)
            return [Score(oracle(load_checkpoint(job.start).architecture), 1.0) for job in jobs]

    @contextmanager
    def asked(data: object, *, workers: int) -> Iterator[Asked]:
        yield Asked()

    monkeypatch.setattr(adaptation, "open_tuner", asked)
    return seen


def changes(architecture: Architecture) -> list[list[Architecture]]:
    """Every network that is one change away: those of each width, of the widths of each stage, and of each block that can go."""
    found = widths(architecture)
    put_out = [width for width in found if width.fields[-1].endswith(".cout")]
    stages = [pair for pair in itertools.combinations(put_out, 2) if pair[0].count == pair[1].count]
    narrowed = [
        [set_widths(architecture, [(width, count) for width in group]) for count in range(1, group[0].count)]
        for group in [*((width,) for width in found), *stages]
    ]
    return narrowed + [[drop_block(architecture, index)] for index in droppable(architecture)]


def reachable(architecture: Architecture) -> list[Architecture]:
    """The same in one list."""
    return [one for group in changes(architecture) for one in group]


@pytest.mark.parametrize("rule", ["accuracy", "ratio"])
def test_every_choice_is_that_of_brute_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    use_oracle(monkeypatch)
    steps = netadapt(family(tmp_path, budget_ratio=0.5, rule=rule, reduction=None))
    assert len(widths(TINY)) == 3
    assert steps[-1].ms <= 0.5 * steps[0].ms < steps[-2].ms
    first_ms = (steps[0].ms - 0.5 * steps[0].ms) / sum(0.96**step for step in range(STEPS))
    for before, step in itertools.pairwise(steps):
        start = load_checkpoint(tmp_path / before.checkpoint).architecture
        goal_ms = max(before.ms - (first_ms - 0.04 * (steps[0].ms - before.ms)), 0.5 * steps[0].ms)
        meeting = [one for one in reachable(start) if fake_ms(one) <= goal_ms + 1e-12]
        accuracy_before = before.accuracy if before.step else steps[0].accuracy

        def value(
            one: Architecture, now_ms: float = before.predicted_ms, accuracy_before: float = accuracy_before
        ) -> float:
            gained = oracle(one) - (accuracy_before if rule == "ratio" else 0.0)
            return gained / (now_ms - fake_ms(one)) if rule == "ratio" else gained

        chosen = load_checkpoint(tmp_path / step.checkpoint).architecture
        if rule == "accuracy":
            assert oracle(chosen) == pytest.approx(max(map(oracle, meeting)))
        else:
            widest = [one for one in meeting if not any(_contains(other, one) for other in meeting if other != one)]
            assert value(chosen) == pytest.approx(max(map(value, widest)))


def _contains(one: Architecture, other: Architecture) -> bool:
    mine, theirs = ({width.fields: width.count for width in widths(each)} for each in (one, other))
    return fake_ms(one) <= fake_ms(other) and all(mine.get(key, 0) >= count for key, count in theirs.items())


def unmeasured(ms: float) -> Step:
    """A start that is predicted to take so long."""
    told = {"what": "start", "checkpoint": "", "fingerprint": "", "accuracy": 0.5, "loss": 1.0, "factor": 1.0}
    return Step(step=0, predicted_ms=ms, measured_ms=None, **told)  # type: ignore[arg-type]


def test_every_proposal_is_faster_than_the_network_before(tmp_path: Path) -> None:
    start_ms = fake_ms(TINY)
    schedule = reductions("0.1", decay=0.9, start_ms=start_ms, budget_ms=None)
    for budget_ms in (0.5 * start_ms, start_ms, 2 * start_ms):  # also one that only the device does not meet yet
        loop = adaptation._Loop(family(tmp_path), schedule, budget_ms)
        found = loop._proposals(trained(), unmeasured(start_ms), fake_ms)
        assert {one.kind for one in found} >= {"width", "block"}
        assert all(one.predicted_ms < start_ms for one in found)


@pytest.mark.slow
def test_wherever_a_path_leads_its_best_proposal_is_the_best_of_all_changes(tmp_path: Path) -> None:
    """Not only on the path that is chosen: at every network that any sequence of proposals reaches on its way to the budget."""
    start_ms = fake_ms(TINY)
    budget_ms = 0.4 * start_ms
    schedule = reductions("0.05", decay=0.96, start_ms=start_ms, budget_ms=budget_ms)
    loop = adaptation._Loop(family(tmp_path), schedule, budget_ms)
    seen, todo = {TINY}, [TINY]
    while todo:
        architecture = todo.pop()
        now_ms = fake_ms(architecture)
        if now_ms <= budget_ms:
            continue
        start = random_checkpoint(architecture)
        found = loop._proposals(start, unmeasured(now_ms), fake_ms)
        single = [
            one for one in found if one.kind != "scale"
        ]  # several widths by one multiplier are more than one change
        if not single:
            assert min(map(fake_ms, reachable(architecture)), default=now_ms) >= now_ms
            continue
        goal_ms = max(schedule.goal_ms(now_ms), budget_ms)
        ways = sum(any(fake_ms(one) <= goal_ms for one in group) for group in changes(architecture))
        if ways >= adaptation.CHOICE * len(widths(architecture)):
            assert len(single) == ways
        else:  # fewer than it wants: its goal was nearer
            goal_ms = max(one.predicted_ms for one in single)
        best = max(oracle(one) for one in reachable(architecture) if fake_ms(one) <= goal_ms)
        assert max(oracle(one.architecture) for one in single) == pytest.approx(best)
        new = {one.architecture for one in found} - seen
        seen |= new
        todo += new
    assert len(seen) > 30


def test_where_few_layers_take_enough_for_a_step_it_is_made_smaller(tmp_path: Path) -> None:
    layers = Architecture(
        tuple(Conv(cout=width, kernel=1) for width in (64, 16, 16, 16, 16, 16)), classes=3, channels=1
    )

    def channels(architecture: Architecture) -> float:
        return float(sum(block.cout for block in architecture.blocks))  # type: ignore[union-attr]

    start, before = random_checkpoint(layers, seed=0), unmeasured(channels(layers))
    for share in ("0.05", "0.3"):  # for 0.3 the first layer alone is wide enough
        schedule = reductions(share, decay=0.96, start_ms=channels(layers), budget_ms=None)
        found = adaptation._Loop(family(tmp_path), schedule, None)._proposals(start, before, channels)
        assert len([one for one in found if one.kind == "width"]) == 6, share


def test_the_first_rung_stops_some_and_an_audit_stops_none(tmp_path: Path) -> None:
    wide = family(tmp_path / "a", budget_ratio=0.75, reduction="0.13", audit_every=2)
    steps = netadapt(wide)
    assert [step.audit is None for step in steps[1:]] == [bool(step.step % 2) for step in steps[1:]]
    for step in steps[1:]:
        assert step.proposals - step.dominated - step.stopped >= 1
        assert step.stopped == 0 or step.audit is None
        assert step.audit is None or step.audit >= 0
        tried = step.proposals - (step.dominated if step.audit is None else 0)
        assert step.images == (tried - step.stopped) * (SHORT.images or 0)


def test_the_first_rung_is_judged_on_a_part_of_the_hold_out_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "JUDGED", len(DATA.validation) // 3)
    jobs = use_oracle(monkeypatch)
    netadapt(family(tmp_path, budget_ratio=0.8))
    assert {job.judge_every for job in jobs if "rung0" in job.result.name} == {3}
    assert {job.judge_every for job in jobs if "rung1" in job.result.name} == {1}
    save_checkpoint(tmp_path / "a.pt", trained())
    job = Job(start=tmp_path / "a.pt", result=tmp_path / "b.pt", recipe=SHORT, seed=0, skip_images=0, judge_every=3)
    (score,) = Tuner(DATA, 1).run([job], on_done=lambda done: None)
    part = Split(DATA.validation.images[::3], DATA.validation.labels[::3])
    assert score is not None
    assert score.accuracy == evaluate(load_checkpoint(job.result).network(), part, DATA).accuracy
    (elsewhere,) = Tuner(mapped(DATA), 1).run(
        [dataclasses.replace(job, result=tmp_path / "c.pt")], on_done=lambda done: None
    )
    assert elsewhere == score, "of mapped images others were looked at"


# The whole of it


def test_the_budget_is_met_and_the_result_is_an_ordinary_checkpoint(tmp_path: Path) -> None:
    trimmed = family(tmp_path, budget_ratio=0.75, reduction="0.13")
    steps = netadapt(trimmed)
    outcome = finish(
        trimmed,
        steps,
        recipe=LONG,
        distillation=Distillation(checkpoint_teacher(trained()), folder=tmp_path / "labels"),
    )
    final = load_checkpoint(outcome.checkpoint)
    assert outcome.measured_ms <= 0.75 * steps[0].ms
    assert outcome.measured_ms == pytest.approx(fake_ms(final.architecture), rel=1e-3)
    assert outcome.accuracy > 0.7
    assert outcome.start_accuracy > 0.9
    assert final.metrics["test_accuracy"] == outcome.accuracy
    assert final.metrics["accuracy"] == outcome.validation_accuracy
    images = (DATA.test.images.float() / 255 - 0.4) / 0.2
    compare(onnx_model(final, batch=None), final.network(), images)
    assert [json.loads((tmp_path / f"step-{step.step:02}.json").read_text())["accuracy"] for step in steps] == [
        step.accuracy for step in steps
    ]
    assert not list(tmp_path.glob("*.proposals"))
    for step in steps:
        kept = load_checkpoint(tmp_path / step.checkpoint)
        assert kept.architecture.fingerprint == step.fingerprint
        assert kept.metrics["seed"] == trained().metrics["seed"], "as that divides the images"
    predicted = [step.predicted_ms for step in steps]
    assert predicted == sorted(predicted, reverse=True)


def test_importance_decides_which_channels_stay(tmp_path: Path) -> None:
    one, other = (netadapt(family(tmp_path / name, importance=name)) for name in ("l2", "taylor"))
    assert not same(tmp_path / "l2" / one[1].checkpoint, tmp_path / "taylor" / other[1].checkpoint)


SCRIPT = """
import multiprocessing, os, signal, sys
from pathlib import Path
import torch
from nas.adaptation import netadapt
from nas.finishing import finish
from tests.nas.family import Events, family
from tests.nas.test_adaptation import LONG

def kill(what):
    if what.startswith(moment):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    folder, moment, workers = sys.argv[1:]
    trimmed = family(Path(folder), budget_ratio=0.8, workers=int(workers), events=Events(kill))
    finish(trimmed, netadapt(trimmed), recipe=LONG)
"""


def test_kill_9(tmp_path: Path) -> None:
    """Killed at two places, with other numbers of workers, it ends where an undisturbed run ends, and leaves none behind."""
    calm = family(tmp_path / "calm", budget_ratio=0.8)
    steps = netadapt(calm)
    wanted = finish(calm, steps, recipe=LONG)
    script, folder = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[2]
    for moment, workers in (("step 2: hopeful proposals fine-tuned 1", 2), ("long fine-tune", 1)):
        command = [sys.executable, str(script), str(folder), moment, str(workers)]
        killed = subprocess.run(
            command, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True
        )
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        orphans = [Path("/proc", pid) for pid in killed.stdout.split()]
        assert len(orphans) == (2 if workers == 2 else 0)
        for _ in range(100):
            if not any(map(_running, orphans)):
                break
            time.sleep(0.1)
        assert not any(map(_running, orphans)), "workers outlive their parent"
    seen: list[str] = []
    resumed = family(folder, budget_ratio=0.8, events=Events(seen.append))
    again = netadapt(resumed)
    assert not seen, "steps were made again"
    got = finish(resumed, again, recipe=LONG)
    assert timeless(again) == timeless(steps)
    assert all(same(tmp_path / "calm" / step.checkpoint, folder / step.checkpoint) for step in steps)
    assert same(got.checkpoint, wanted.checkpoint)
    assert (got.accuracy, got.measured_ms) == (wanted.accuracy, wanted.measured_ms)


def test_a_worker_that_ends_while_it_has_nothing_to_do_is_told_in_one_line(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", trained())
    jobs = [
        Job(start=tmp_path / "a.pt", result=tmp_path / f"{number}.pt", recipe=SHORT, seed=0, skip_images=0)
        for number in range(2)
    ]
    with open_tuner(DATA, workers=2) as tuner:
        assert all(tuner.run(jobs, on_done=lambda done: None))
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()
        for _ in range(2):  # the second time it is known before anything is handed out
            with pytest.raises(TrainingError, match=r"a worker process ended, .* fewer --workers"):
                tuner.run(jobs, on_done=lambda done: None)


def _running(process: Path) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "\nState:\tZ" not in (process / "status").read_text()
    except OSError:
        return False


def test_smallest_network_within_a_drop_of_accuracy(tmp_path: Path) -> None:
    asked = {"budget_ratio": None, "max_accuracy_drop": 0.1, "reduction": "0.15", "measure_every": 99}
    trimmed = family(tmp_path, **asked)
    steps = netadapt(trimmed)
    outcome = finish(trimmed, steps, recipe=LONG)
    least = steps[0].accuracy - 0.1
    assert outcome.validation_accuracy >= least
    tried = [step for step in steps if step.step > outcome.step.step]
    assert all(load_checkpoint(tmp_path / f"final-{step.step:02}.pt").metrics["accuracy"] < least for step in tried)
    assert all(step.accuracy < least for step in steps[-2:]) or outcome.step.step == steps[-1].step
    assert outcome.step.step > 0
    assert outcome.measured_ms == pytest.approx(fake_ms(load_checkpoint(outcome.checkpoint).architecture), rel=1e-3)
    again = family(tmp_path, **asked, device=Lost(0))
    assert finish(again, netadapt(again), recipe=LONG) == outcome, "what was measured in the end is not measured again"


def test_where_the_end_is_not_as_predicted_that_is_told(tmp_path: Path) -> None:
    events = Events()
    trimmed = family(tmp_path, events=events)
    start = dataclasses.replace(trimmed.first(), measured_ms=None, predicted_ms=1.5 * fake_ms(TINY))
    outcome = finish(trimmed, [start], recipe=LONG)
    assert outcome.measured_ms == pytest.approx(fake_ms(TINY), rel=1e-3)
    assert trimmed.kept(0) == outcome.step
    assert any(note.startswith("step 0: predicted") for note in events.notes)


def test_where_accuracy_is_the_limit_trimming_goes_on_beyond_what_decaying_steps_add_up_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_oracle(monkeypatch)
    events = Events()
    limit = {"budget_ratio": None, "max_accuracy_drop": 0.99, "reduction": "0.2", "decay": 0.5}  # 0.4 in all
    steps = netadapt(family(tmp_path, **limit, events=events))
    assert steps[-1].ms < 0.3 * steps[0].ms
    assert len(steps) < 20
    assert any("faster: trimming ends there" in note for note in events.notes)


def test_uniform_scales_every_width_alike(tmp_path: Path) -> None:
    scaled = family(tmp_path, budget_ratio=0.6, method="uniform")
    steps = uniform(scaled)
    assert len(steps) == 2
    assert steps[1].ms <= 0.6 * steps[0].ms
    counts = {width.fields: width.count for width in widths(load_checkpoint(tmp_path / "step-01.pt").architecture)}
    assert all(counts[width.fields] < width.count for width in widths(TINY) if width.count % 8)
    assert finish(scaled, steps, recipe=LONG).step == steps[1]


# Model and device


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
    with pytest.raises(ModelError, match=r"must agree within 50% to trim by, .* profile the target"):
        netadapt(family(tmp_path, model=FakeModel(0.5)))


@pytest.mark.parametrize("device", [None, SlowDevice()], ids=["published", "measured"])
def test_a_start_of_unknown_kernels_is_refused_in_the_models_words(tmp_path: Path, device: SlowDevice | None) -> None:
    with pytest.raises(UnmeasuredKernel, match="never measured"):
        netadapt(family(tmp_path, model=Ignorant(), device=device))
    assert not list(tmp_path.iterdir())


class Lost(SlowDevice):
    """A device that is unplugged after some measurements."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def measure(self, *args: Any, **options: Any) -> Any:
        if self.left == 0:
            raise DeviceError(f"{self.name}: is not there any more")
        self.left -= 1
        return super().measure(*args, **options)


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


# Refusals


def refusing(tmp_path: Path, **changes: Any) -> Callable[[], Family]:
    return lambda: family(tmp_path, **{"budget_ratio": None, **changes})


def test_budgets_that_make_no_sense(tmp_path: Path) -> None:
    start_ms = fake_ms(TINY)
    with pytest.raises(BudgetError, match=r"there is nothing to trim: the network takes .* within the budget of 99 ms"):
        netadapt(family(tmp_path / "1", budget_ratio=None, budget_ms=99.0))
    with pytest.raises(BudgetError, match=r"got 1e-06 ms; the fastest reachable is about \d.* ms"):
        netadapt(family(tmp_path / "2", budget_ratio=None, budget_ms=1e-6))
    with pytest.raises(BudgetError, match=r"must be saved, but a first reduction of"):
        netadapt(family(tmp_path / "3", budget_ratio=None, budget_ms=0.6 * start_ms, reduction="0.001"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "exactly one limit is needed: .* got none"),
        ({"budget_ms": 1.0, "budget_ratio": 0.5}, "got --budget-ms, --budget-ratio"),
        ({"budget_ratio": 1.5}, "--budget-ratio must be between 0 and 1, got 1.5"),
        ({"budget_ms": -1.0}, "--budget-ms must be above 0, got -1"),
        ({"budget_ms": 1.0, "rule": "luck"}, "--rule must be one of accuracy, ratio, got 'luck'"),
        ({"budget_ms": 1.0, "method": "x"}, "--method must be one of netadapt, uniform"),
        ({"budget_ms": 1.0, "importance": "x"}, "--importance must be one of l2, taylor"),
        ({"budget_ms": 1.0, "reduction": "much"}, "--step must be milliseconds .* or a fraction .*, got 'much'"),
        ({"budget_ms": 1.0, "decay": 0.0}, "--decay must be above 0 and at most 1, got 0"),
        ({"budget_ms": 1.0, "decay": 1.1}, "--decay must be above 0 and at most 1, got 1.1"),
        (
            {"max_accuracy_drop": 0.1, "method": "uniform"},
            "needs --budget-ms or --budget-ratio, got --max-accuracy-drop",
        ),
        ({"budget_ms": 1.0, "workers": 0}, "--workers must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BudgetError, match=message):
        refusing(tmp_path, **changes)()


def test_training_that_diverges_everywhere(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="step 1: the loss of every proposal became infinite"):
        netadapt(family(tmp_path, short=Recipe(images=64, batch_size=16, lr=1e18, warm_up=0)))

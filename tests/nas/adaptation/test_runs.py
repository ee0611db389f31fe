"""Trimming as a whole: it meets its limit, survives being killed, and says what cannot be."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.adaptation import netadapt
from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.deployment import compare, onnx_model
from nas.distillation import Distillation
from nas.errors import BudgetError, TrainingError
from nas.family import Family
from nas.finishing import finish
from nas.recipe import Recipe
from nas.teachers import checkpoint_teacher
from nas.tuning import Job, open_tuner
from nas.uniform import uniform
from searchspace.width import widths
from tests.nas.family import (
    DATA,
    LONG,
    SHORT,
    TINY,
    Events,
    Lost,
    fake_ms,
    family,
    same,
    timeless,
    trained,
    use_oracle,
)


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
    assert final.metrics["measured_ms"] == outcome.measured_ms
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
from tests.nas.family import LONG, Events, SlowDevice, family

def kill(what):
    if what.startswith(moment):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

class Watched(SlowDevice):
    def measure(self, models, **options):
        kill(f"measuring {len(models)}")
        return super().measure(models, **options)

if __name__ == "__main__":
    folder, moment, workers = sys.argv[1:]
    trimmed = family(Path(folder), budget_ratio=0.8, workers=int(workers), events=Events(kill), device=Watched())
    finish(trimmed, netadapt(trimmed), recipe=LONG)
"""


def test_kill_9(tmp_path: Path) -> None:
    """Killed at three places, with other numbers of workers, it ends where an undisturbed run ends, and leaves none behind."""
    calm = family(tmp_path / "calm", budget_ratio=0.8)
    steps = netadapt(calm)
    wanted = finish(calm, steps, recipe=LONG)
    script, folder = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[3]
    moments = (("step 2: hopeful proposals fine-tuned 1", 2), ("measuring 2", 1), ("long fine-tune", 1))
    for moment, workers in moments:
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
    events = Events()
    trimmed = family(tmp_path, **asked, events=events)
    steps = netadapt(trimmed)
    outcome = finish(trimmed, steps, recipe=LONG)
    least = steps[0].accuracy - 0.1
    assert outcome.validation_accuracy >= least
    tried = {int(path.stem[-2:]): load_checkpoint(path).metrics["accuracy"] for path in tmp_path.glob("final-*.pt")}
    assert all((accuracy >= least) == (number <= outcome.step.step) for number, accuracy in tried.items())
    assert {outcome.step.step, min(outcome.step.step + 1, len(steps) - 1)} <= tried.keys(), "the next one is too small"
    most = (len(steps) - 1).bit_length()
    assert len(tried) <= most
    assert any(f"by bisection: at most {most} long fine-tunes of 160 images each" in note for note in events.notes)
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


def test_a_teachers_answers_that_were_damaged_are_said_to_be_asked_for_again(tmp_path: Path) -> None:
    events = Events()
    scaled = family(tmp_path, budget_ratio=0.6, method="uniform", events=events)
    steps = uniform(scaled)
    distillation = Distillation(checkpoint_teacher(trained()), folder=tmp_path / "labels")
    finish(scaled, steps, recipe=LONG, distillation=distillation).checkpoint.unlink()
    (labels,) = (tmp_path / "labels").glob("*/replica-000.f16")
    labels.write_bytes(labels.read_bytes()[:-1] + b"?")
    assert not any("damaged" in note for note in events.notes)
    finish(scaled, steps, recipe=LONG, distillation=distillation)
    assert any("was damaged: the teacher has been asked again" in note for note in events.notes)


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

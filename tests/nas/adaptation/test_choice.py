"""Trimming chooses what brute force chooses, among proposals that are all faster, and skips what is hopeless."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from nas import adaptation, contest
from nas.adaptation import netadapt
from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.data import Split
from nas.deployment import random_checkpoint
from nas.evaluation import evaluate
from nas.reductions import STEPS, reductions
from nas.steps import Step
from nas.tuning import Job, Tuner
from searchspace.architecture import Architecture
from searchspace.blocks import Conv
from searchspace.width import drop_block, droppable, set_widths, widths
from tests.nas.family import (
    DATA,
    SHORT,
    TINY,
    fake_ms,
    family,
    oracle,
    trained,
    use_oracle,
)
from tests.nas.learning import mapped


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

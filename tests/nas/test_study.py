"""The study: nothing over budget is trained, nothing twice, and a killed study goes on without losing a finished trial."""

import dataclasses
import errno
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from nas.claims import DEATHS, DEATHS_AT_MOST
from nas.cli import console
from nas.errors import Diverged, StudyError
from nas.faithfulness import faithfulness
from nas.fidelity import Fidelity
from nas.limits import size_limits
from nas.outcomes import completed, count_outcomes, progress
from nas.sampling.candidate_sampler import SamplerName
from nas.sampling.history import CANDIDATE, OUTCOME
from nas.storage import open_study
from nas.study import STARTUP_TRIALS, Problem, RungScore, attach_sampler, prepare, run_trials
from nas.survey import Survey, survey
from searchspace.architecture import Architecture, lower
from searchspace.recalling import recall
from searchspace.space import parse_space
from searchspace.width import set_width, widths

SPACE = parse_space(
    """
    format: 1
    resolution: 16
    stem: {width: [8, 16], stride: 2}
    stages:
      - {depth: [1, 2], width: [16, 24], stride: 2, blocks: {uib: {expansion: [2, 4]}, fire: {bypass: [none, conv]}}}
    """
).adapt(channels=1, classes=4)
IDENTITY = {"space": SPACE.fingerprint, "data": "d", "target": "t", "budget_ms": 0.1}


@dataclass(frozen=True)
class Guess:
    ms: float

    @property
    def low_ms(self) -> float:
        return self.ms * 0.9

    @property
    def high_ms(self) -> float:
        return self.ms * 1.1


def predict(architecture: Architecture) -> Guess:
    return Guess(lower(architecture).macs / 1e6)


SURVEY: Survey = survey(SPACE, lambda architecture: predict(architecture).ms, samples=300)
BUDGET_MS = SURVEY.quantile_ms(0.5)


@dataclass
class Trainer:
    """Scores by size (or by luck), without training; keeps what it was asked."""

    diverging: float = 0.0
    lucky: bool = False
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, architecture: Architecture, rung: int) -> RungScore:
        self.asked.append((architecture.fingerprint, rung))
        if int(architecture.fingerprint, 16) % 100 < self.diverging * 100:
            raise Diverged("the loss became nan")
        if self.lucky:
            return RungScore(int(architecture.fingerprint, 16) % 1000 / 1000, 1.0, 0.1)
        return RungScore(1 - 1 / (1 + lower(architecture).params / 1000) + 0.01 * rung, 1.0, 0.1)


def problem(trainer: Trainer, *, rungs: int = 2, budget_ms: float = BUDGET_MS) -> Problem:
    return Problem(space=SPACE, predict=predict, budget_ms=budget_ms, train=trainer, rungs=rungs)


def new_study(tmp_path: Path, **identity: object) -> optuna.Study:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "search", identity={**IDENTITY, **identity})
    attach_sampler(study, problem(Trainer()), seed=0)
    prepare(study, SURVEY.spread(BUDGET_MS, STARTUP_TRIALS), local=True)
    return study


def test_only_candidates_within_the_budget_are_trained_and_each_rung_once(tmp_path: Path) -> None:
    trainer = Trainer(lucky=True)
    study = new_study(tmp_path)
    run_trials(study, problem(trainer), trials=15)
    assert max(Counter(trainer.asked).values()) == 1
    outcomes = count_outcomes(study)
    assert outcomes["complete"] + outcomes["pruned"] == 15
    assert outcomes["pruned"] > 0
    for candidate in completed(study):
        assert candidate.low_ms <= BUDGET_MS
        assert SPACE.contains(candidate.architecture)
    infeasible = [trial for trial in study.trials if trial.user_attrs[OUTCOME] == "infeasible"]
    assert all(trial.constraints["latency"] > 0 and CANDIDATE not in trial.user_attrs for trial in infeasible)


def test_startup_candidates_are_spread_over_the_feasible_latencies(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    run_trials(study, problem(Trainer(), rungs=1), trials=STARTUP_TRIALS)
    started = [candidate.predicted_ms for candidate in completed(study)]
    assert max(started) > SURVEY.quantile_ms(0.4)
    assert min(started) < SURVEY.quantile_ms(0.1)


def test_more_trials_extend_a_study(tmp_path: Path) -> None:
    trainer = Trainer()
    run_trials(new_study(tmp_path), problem(trainer), trials=5)
    again = new_study(tmp_path)
    run_trials(again, problem(trainer), trials=9)
    assert progress(again, 9).trained == 9
    assert max(Counter(trainer.asked).values()) == 1


def test_a_diverged_candidate_fails_and_the_search_goes_on(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    run_trials(study, problem(Trainer(diverging=0.5)), trials=12)
    outcomes = count_outcomes(study)
    assert outcomes["failed"] > 0
    assert outcomes["complete"] > 0
    assert outcomes["complete"] + outcomes["pruned"] + outcomes["failed"] == 12


@dataclass
class Faulty(Trainer):
    """Raises an error for some networks."""

    fault: Exception = field(default_factory=lambda: RuntimeError("out of memory"))
    bad: tuple[str, ...] = ()

    def __call__(self, architecture: Architecture, rung: int) -> RungScore:
        score = super().__call__(architecture, rung)
        if not self.bad:
            self.bad = (architecture.fingerprint,)  # the first
        if architecture.fingerprint in self.bad:
            raise self.fault
        return score


def test_a_candidate_whose_training_raises_fails_after_some_attempts_and_the_search_goes_on(tmp_path: Path) -> None:
    study, trainer, notes = new_study(tmp_path), Faulty(), list[str]()
    run_trials(study, problem(trainer), trials=12, note=notes.append)
    outcomes = count_outcomes(study)
    assert outcomes["failed"] == 1
    assert outcomes["complete"] + outcomes["pruned"] == 11
    assert Counter(trainer.asked)[trainer.bad[0], 0] == DEATHS_AT_MOST == len(notes)
    assert notes[0] == (
        f"candidate {trainer.bad[0]}: training it raised RuntimeError: out of memory; it is queued once more"
    )


def test_one_that_is_asked_to_end_hands_its_candidate_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(Trainer):
        def __call__(self, architecture: Architecture, rung: int) -> RungScore:
            if rung:
                signal.raise_signal(signal.SIGTERM)
            return super().__call__(architecture, rung)

    study = new_study(tmp_path)
    before = signal.signal(signal.SIGTERM, console._interrupt)  # as the command line does
    try:
        with pytest.raises(KeyboardInterrupt):
            run_trials(study, problem(Ended()), trials=3)
    finally:
        signal.signal(signal.SIGTERM, before)
    (given_back,) = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert study.trials[-1].state == TrialState.WAITING
    assert study.trials[-1].system_attrs["fixed_params"] == given_back.params
    assert study.trials[-1].user_attrs == {DEATHS: 0}


def test_where_every_training_raises_the_error_is_shown(tmp_path: Path) -> None:
    class Broken(Trainer):
        def __call__(self, architecture: Architecture, rung: int) -> RungScore:
            raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        run_trials(new_study(tmp_path), problem(Broken()), trials=12)


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), StudyError("place: gone")])
def test_a_full_disk_is_no_fault_of_the_candidate(tmp_path: Path, fault: Exception) -> None:
    study = new_study(tmp_path)
    for _ in range(DEATHS_AT_MOST + 1):
        with pytest.raises(type(fault)):
            run_trials(study, problem(Faulty(fault=fault)), trials=3)
    assert count_outcomes(study)["failed"] == 0


def test_a_storage_that_fails_in_the_midst_is_one_line(tmp_path: Path) -> None:
    study = new_study(tmp_path)

    class Unlucky(Trainer):
        def __call__(self, architecture: Architecture, rung: int) -> RungScore:
            (tmp_path / "study.db").write_bytes(b"no database any more" * 1000)
            return super().__call__(architecture, rung)

    with pytest.raises(StudyError, match=r"the study's storage failed \(.*\); finished trials are kept") as told:
        run_trials(study, problem(Unlucky()), trials=3)
    assert "\n" not in str(told.value)


def test_a_used_up_space_ends_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.study.WASTE_LIMIT", 3)
    tiny = parse_space(
        "{format: 1, resolution: 8, stages: [{depth: 1, width: [8, 16], blocks: {conv: {kernel: [1, 3]}}}]}"
    ).adapt(channels=1, classes=2)
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "search", identity=IDENTITY)
    everything = Problem(space=tiny, predict=predict, budget_ms=1e9, train=Trainer(), rungs=1)
    attach_sampler(study, everything, seed=0)
    with pytest.raises(StudyError, match="known already; the space is used up"):
        run_trials(study, everything, trials=5)
    assert count_outcomes(study)["complete"] == 4


def test_where_almost_everything_is_beyond_a_limit_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.study.WASTE_LIMIT", 1)
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "search", identity=IDENTITY)
    tight = dataclasses.replace(problem(Trainer(), budget_ms=1e9), limits=size_limits(params=1))
    attach_sampler(study, tight, "random", seed=0)
    with pytest.raises(StudyError, match=r"in a row were beyond --max-params \(\d+ of them\).*: raise --max-params,"):
        run_trials(study, tight, trials=1)


def test_a_worker_goes_on_where_more_are_wanted_meanwhile(tmp_path: Path) -> None:
    study, answers = new_study(tmp_path), [5, 7, 7]
    assert run_trials(study, problem(Trainer()), trials=3, more=lambda: answers.pop(0)) == 7
    assert progress(study, 7).trained == 7
    assert not answers


def test_what_candidates_are_compared_by_is_kept_beside_their_accuracy(tmp_path: Path) -> None:
    class ByLoss(Trainer):
        def __call__(self, architecture: Architecture, rung: int) -> RungScore:
            return dataclasses.replace(super().__call__(architecture, rung), loss=0.25, value=-0.25)

    study = new_study(tmp_path)
    run_trials(study, problem(ByLoss(), rungs=1), trials=2)
    for candidate in completed(study):
        assert candidate.score == -0.25
        assert candidate.accuracy > 0


@pytest.mark.parametrize("key", ["space", "data", "target", "budget_ms"])
def test_a_study_of_something_else_is_refused(tmp_path: Path, key: str) -> None:
    new_study(tmp_path)
    with pytest.raises(StudyError, match=f"was made for another {key}"):
        new_study(tmp_path, **{key: "other"})


def test_unreachable_storage_is_one_line() -> None:
    with pytest.raises(StudyError, match="storage cannot be used") as refused:
        open_study("sqlite:////nowhere/at/all.db", "search", identity=IDENTITY)
    assert "\n" not in str(refused.value)


def test_rungs_that_rank_alike_have_tau_one(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    run_trials(study, problem(Trainer()), trials=12)
    first, last = faithfulness(study, (Fidelity(images=10), Fidelity(images=20)), full={})
    assert first.to_next.tau == pytest.approx(1.0)
    assert first.to_next.candidates == last.candidates == count_outcomes(study)["complete"]
    assert last.to_full.tau is None


def _work(folder: str) -> None:
    """What the killed process does: trials that take a while, each recorded once finished."""

    class Slow(Trainer):
        def __call__(self, architecture: Architecture, rung: int) -> RungScore:
            time.sleep(0.05)
            with (Path(folder) / "trained.jsonl").open("a") as file:
                file.write(json.dumps([architecture.fingerprint, rung]) + "\n")
            return super().__call__(architecture, rung)

    run_trials(new_study(Path(folder)), problem(Slow()), trials=14)


def test_kill_dash_nine_loses_at_most_the_trial_in_flight(tmp_path: Path) -> None:
    code = f"from tests.nas.test_study import _work; _work({str(tmp_path)!r})"
    finished: set[int] = set()
    for patience_s in (1.0, 1.3, 1.6):  # killed three times, each time somewhere else
        process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
        deadline = time.monotonic() + 60
        while not _lines(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(patience_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = {
            trial.number
            for trial in _load(tmp_path).trials
            if OUTCOME in trial.user_attrs and trial.state.is_finished()
        }
        assert finished <= now
        finished = now
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, timeout=120)
    study = _load(tmp_path)
    outcomes = count_outcomes(study)
    assert outcomes["complete"] + outcomes["pruned"] == 14
    judged = [
        trial.user_attrs[CANDIDATE]["fingerprint"]
        for trial in study.trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and trial.user_attrs[OUTCOME] in ("complete", "pruned")
    ]
    assert len(judged) == len(set(judged))
    repeated = [pair for pair, times in Counter(_lines(tmp_path)).items() if times > 1]
    assert len({fingerprint for fingerprint, _ in repeated}) <= 3  # one trial in flight for each kill


def _lines(folder: Path) -> list[tuple[str, int]]:
    path = folder / "trained.jsonl"
    text = path.read_text() if path.exists() else ""
    return [tuple(json.loads(line)) for line in text.splitlines()]


def _load(folder: Path) -> optuna.Study:
    return optuna.load_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="search")


def test_one_that_died_between_its_last_score_and_telling_it_is_trained_again(tmp_path: Path) -> None:
    study, trainer = new_study(tmp_path), Trainer(lucky=True)
    run_trials(study, problem(trainer), trials=1)
    told = study.trials[0]
    died = optuna.trial.create_trial(
        state=TrialState.FAIL, params=told.params, distributions=told.distributions, user_attrs=told.user_attrs
    )
    other = optuna.create_study(direction="maximize")
    other.add_trial(died)
    other.enqueue_trial(told.params)
    attach_sampler(other, problem(trainer), seed=0)
    run_trials(other, problem(trainer), trials=1)
    assert count_outcomes(other) == {"interrupted": 1, "complete": 1}
    assert other.trials[1].user_attrs[CANDIDATE]["fingerprint"] == told.user_attrs[CANDIDATE]["fingerprint"]


@pytest.mark.parametrize("sampler", ["auto", "tpe", "random"])
def test_a_network_outside_of_the_space_is_a_candidate_also_after_a_kill(tmp_path: Path, sampler: SamplerName) -> None:
    drawn = completed_one(tmp_path / "one")
    odd = set_width(drawn, widths(drawn)[0], widths(drawn)[0].count - 3)
    assert recall(SPACE, odd) is None
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "search", identity=IDENTITY)
    attach_sampler(study, problem(Trainer()), sampler, seed=0)
    prepare(study, SURVEY.spread(BUDGET_MS, STARTUP_TRIALS), outside=[odd], local=True)

    class Killed(Trainer):
        def __call__(self, architecture: Architecture, rung: int) -> RungScore:
            if rung:
                raise KeyboardInterrupt
            return super().__call__(architecture, rung)

    killed = Killed()
    with pytest.raises(KeyboardInterrupt):
        run_trials(study, problem(killed), trials=15)
    assert killed.asked == [(odd.fingerprint, 0)]
    prepare(study, [], outside=[odd], local=True)
    trainer = Trainer()
    run_trials(study, problem(trainer), trials=15)
    assert Counter(trainer.asked)[odd.fingerprint, 0] == 1
    assert odd in [one.architecture for one in completed(study)]
    prepare(study, [], outside=[odd], local=True)
    assert not study.get_trials(states=(TrialState.WAITING,))


def completed_one(folder: Path) -> Architecture:
    """A network of the space well within the budget."""
    folder.mkdir()
    study = new_study(folder)
    run_trials(study, problem(Trainer(), rungs=1), trials=1)
    return completed(study)[0].architecture

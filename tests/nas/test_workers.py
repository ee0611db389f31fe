"""Processes that share one study: nothing is trained twice or lost, whoever is killed; what a task says of bad input is heard."""

import json
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState

from nas.claims import DEATHS_AT_MOST, WORKER, in_flight, reclaim, release, take, worker_name
from nas.errors import StudyError
from nas.outcomes import completed, count_outcomes
from nas.sampling.history import CANDIDATE
from nas.storage import open_study
from nas.study import RungScore, run_trials
from nas.workers import Place, default_processes, places, side_by_side
from searchspace.architecture import Architecture
from tests.nas.test_study import IDENTITY, Trainer, new_study, problem

TRIALS = 10


class Slow(Trainer):
    """Takes a while, and keeps what it was asked on disk."""

    folder: Path

    def __call__(self, architecture: Architecture, rung: int) -> RungScore:
        time.sleep(0.1)
        with (self.folder / "trained.jsonl").open("a") as file:
            file.write(json.dumps([architecture.fingerprint, rung, os.getpid()]) + "\n")
        return super().__call__(architecture, rung)


@dataclass(frozen=True)
class Joining:
    """Works on the study of a folder."""

    folder: Path

    def __call__(self, place: Place) -> None:
        study = open_study(f"sqlite:///{self.folder / 'study.db'}", "search", identity=IDENTITY)
        trainer = Slow(lucky=True)
        trainer.folder = self.folder
        run_trials(study, problem(trainer), trials=TRIALS)


@dataclass(frozen=True)
class Refusing:
    def __call__(self, place: Place) -> None:
        if place.number:
            raise StudyError("the study must be another one")
        time.sleep(60)


@pytest.mark.slow
def test_killed_workers_are_replaced_and_every_candidate_is_trained_once(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    killed: list[int] = []

    def kill_one() -> None:
        """The busiest of those at work, twice."""
        trained = _lines(tmp_path)
        if len(killed) < 2 and len(trained) > 5 * (len(killed) + 1):
            pid = trained[-1][2]
            if pid not in killed:
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    side_by_side(
        Joining(tmp_path),
        processes=2,
        on_look=kill_one,
        on_death=lambda pid: release(study, worker_name(pid)),
    )
    assert killed
    outcomes = count_outcomes(study)
    assert outcomes["complete"] + outcomes["pruned"] == TRIALS
    trained = [
        trial.user_attrs[CANDIDATE]["fingerprint"]
        for trial in study.trials  # one killed between saying how it ends and ending does not count
        if trial.state != TrialState.FAIL and trial.user_attrs.get("outcome") in ("complete", "pruned")
    ]
    assert len(set(trained)) == len(trained) == TRIALS
    assert len({line[2] for line in _lines(tmp_path)}) >= 2
    repeated = [pair for pair, times in Counter((line[0], line[1]) for line in _lines(tmp_path)).items() if times > 1]
    assert len({fingerprint for fingerprint, _ in repeated}) <= len(killed)  # what they had in hand
    assert completed(study)


def test_what_a_task_refuses_ends_all_of_them() -> None:
    began = time.monotonic()
    with pytest.raises(StudyError, match="the study must be another one"):
        side_by_side(Refusing(), processes=2, on_look=lambda: None)
    assert time.monotonic() - began < 60  # the other one was not waited for


@dataclass(frozen=True)
class Telling:
    """Says how many threads it has; all of them the same."""

    def __call__(self, place: Place) -> None:
        place.note(f"{torch.get_num_threads()} threads")


def test_cores_are_divided_among_the_processes_and_what_these_note_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = 5
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for processes in range(1, 8):
        shares = [place.threads for place in places(processes)]
        assert shares == [max(1, cores // processes)] * processes
        assert sum(shares) <= max(cores, processes)
    assert [place.threads for place in places(default_processes())] == [1] * cores
    heard: list[str] = []
    side_by_side(Telling(), processes=2, on_look=lambda: None, on_note=heard.append)
    assert set(heard) == {"2 threads"}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [(place.device, place.threads) for place in places(3)] == [("cuda:0", 1), ("cuda:1", 1), ("cuda:0", 1)]


def test_a_trial_of_a_dead_process_is_queued_again_and_another_s_is_not(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    dead, mine = study.ask(), study.ask()
    dead.set_user_attr(WORKER, worker_name(2**22 + 1))  # beyond what Linux gives out
    mine.set_user_attr(WORKER, worker_name())
    release(study, worker_name(2**22 + 1))
    states = {trial.number: trial.state.name for trial in study.trials}
    assert states[dead.number] == "FAIL"
    assert states[mine.number] == "RUNNING"


def test_a_trial_without_a_name_is_somebody_s_at_first_and_nobody_s_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study(tmp_path)
    begun = study.ask()
    assert [one.number for one in in_flight(study, study.trials)] == [begun.number]
    assert not reclaim(study, study.trials)
    monkeypatch.setattr("nas.claims.UNSIGNED_S", 0.0)
    assert in_flight(study, study.trials) == []
    assert reclaim(study, study.trials)
    assert study.trials[begun.number].state.name == "FAIL"


def test_a_candidate_that_kills_process_after_process_fails(tmp_path: Path) -> None:
    study = new_study(tmp_path)
    run_trials(study, problem(Trainer()), trials=0)
    for death in range(DEATHS_AT_MOST):
        waiting = [one for one in study.trials if one.state.name == "WAITING"]
        trial_id = take(study, waiting[:1] if death == 0 else waiting[-1:])  # the same again
        study._storage.set_trial_user_attr(trial_id, CANDIDATE, {"fingerprint": "deadly"})
        release(study, worker_name())
    assert count_outcomes(study) == {"interrupted": DEATHS_AT_MOST - 1, "failed": 1}
    assert len([one for one in study.trials if one.state.name == "WAITING"]) == len(waiting) - 1


def _lines(folder: Path) -> list[list[object]]:
    path = folder / "trained.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()]

"""Logs: one line for every candidate that is finished from now on, and only of the workers that are asked about."""

from pathlib import Path

from nas.claims import worker_name
from nas.following import Following
from nas.outcomes import completed, count_outcomes
from nas.study import run_trials
from tests.nas.test_study import Trainer, new_study, problem


def test_each_candidate_is_told_once(tmp_path: Path) -> None:
    study, told, others = new_study(tmp_path), list[str](), list[str]()
    run_trials(study, problem(Trainer()), trials=2)
    mine, anothers = Following(told.append, worker=worker_name()), Following(others.append, worker="another:1")

    def follow(state: object) -> None:
        mine(state)  # type: ignore[arg-type]
        anothers(state)  # type: ignore[arg-type]

    run_trials(study, problem(Trainer(diverging=0.4, lucky=True)), trials=12, on_progress=follow)
    assert len(told) == 10 and not others
    outcomes = count_outcomes(study)
    assert outcomes["failed"] and sum("failed: its loss became infinite" in line for line in told) == outcomes["failed"]
    names = {one.architecture.fingerprint for one in completed(study)}
    last = [line for line in told if "to the last rung: accuracy" in line]
    assert last and all(line.split()[1] in names for line in last)
    assert told[-1].endswith("(12 of 12 trained)")

"""A study on PostgreSQL: killed workers and a server that goes away lose nothing; errors are one line without a password."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from nas import database
from nas.claims import beating, reclaim, take
from nas.errors import StudyError
from nas.outcomes import count_outcomes
from nas.sampling.history import CANDIDATE
from nas.storage import open_storage, open_study
from nas.study import STARTUP_TRIALS, attach_sampler, prepare, run_trials
from tests.nas.postgres import PASSWORD, Postgres, open_postgres
from tests.nas.test_study import BUDGET_MS, IDENTITY, SURVEY, Trainer, problem
from tests.shared import free_port

TRIALS = 14


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    started = open_postgres()
    yield started
    started.stop()


def start_worker(server: Postgres, folder: Path, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.nas.working", server.url, str(folder), str(TRIALS), str(seed)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def trained(folder: Path, pid: int) -> list[str]:
    path = folder / f"{pid}.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def wait_for(folder: Path, worker: subprocess.Popen[str], rungs: int) -> None:
    for _ in range(1200):
        if len(trained(folder, worker.pid)) >= rungs:
            return
        assert worker.poll() is None, worker.communicate()[1]
        time.sleep(0.1)
    raise AssertionError(f"the worker trained {trained(folder, worker.pid)}")


def test_a_killed_worker_and_a_restarted_server_lose_nothing(server: Postgres, tmp_path: Path) -> None:
    study = open_study(server.url, "search", identity=IDENTITY)
    prepare(study, SURVEY.spread(BUDGET_MS, STARTUP_TRIALS), local=False)
    killed, lasting = (start_worker(server, tmp_path, seed) for seed in (1, 2))
    try:
        wait_for(tmp_path, killed, 1)
        wait_for(tmp_path, lasting, 1)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        server.stop()
        time.sleep(1)
        server.start()
        _, errors = lasting.communicate(timeout=240)
    finally:
        for worker in (killed, lasting):
            worker.kill()
    assert lasting.returncode == 0, errors
    outcomes = count_outcomes(study)
    assert outcomes["complete"] + outcomes["pruned"] == TRIALS
    ended = [one for one in study.trials if one.user_attrs.get("outcome") in ("complete", "pruned")]
    assert len({one.user_attrs[CANDIDATE]["fingerprint"] for one in ended}) == TRIALS
    given_up = [one for one in study.trials if one.state.name == "FAIL" and CANDIDATE in one.user_attrs]
    assert {one.user_attrs[CANDIDATE]["fingerprint"] for one in given_up} <= {
        one.user_attrs[CANDIDATE]["fingerprint"] for one in ended
    }  # what the killed one had in hand was trained by the other
    assert not [one for one in study.trials if one.state.name == "RUNNING"]
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_one_that_died_before_its_first_heartbeat_is_found(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(database, "GRACE_S", 0.5)
    study = open_study(server.url, "dying", identity=IDENTITY)
    prepare(study, SURVEY.spread(BUDGET_MS, STARTUP_TRIALS), local=False)
    waiting, living = take(study, study.trials), take(study, study.trials)
    with beating(study, living):
        while study.trials[0].state.name == "RUNNING":
            reclaim(study, study.trials)
            time.sleep(0.05)
        assert study.trials[1].state.name == "RUNNING"
    assert waiting == study.trials[0]._trial_id
    assert study.trials[-1].system_attrs["fixed_params"] == study.trials[0].system_attrs["fixed_params"]
    assert len(study.trials) == STARTUP_TRIALS + 1
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_a_trial_asks_the_database_little(server: Postgres) -> None:
    study, trials = open_study(server.url, "counting", identity=IDENTITY), 8
    attach_sampler(study, problem(Trainer()), "random", seed=0)
    engine, asked = study._storage._backend.engine, list[str]()  # type: ignore[attr-defined]
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    run_trials(study, problem(Trainer()), trials=trials)
    selects = sum(statement.startswith("SELECT") for statement in asked)
    assert selects <= 25 * trials
    engine.dispose()


def test_a_server_that_is_full_is_waited_for(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    psycopg = pytest.importorskip("psycopg")
    monkeypatch.setattr(database, "TRY_EVERY_S", 0.01)
    monkeypatch.setattr(database, "OPENING_S", 0.1)
    few = server.url.replace("//nas:", "//few:")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE few LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1")
    with psycopg.connect(few), pytest.raises(StudyError, match=r"must be reachable, .*too many connections"):
        open_storage(few)


def test_a_wrong_password_is_told_without_it(server: Postgres) -> None:
    with pytest.raises(StudyError, match="password authentication failed") as told:
        open_storage(server.url_with("hunter2-secret"))
    assert "hunter2-secret" not in str(told.value)
    assert PASSWORD not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_server_that_is_not_there_is_tried_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="the extra postgresql is not installed")
    monkeypatch.setattr(database, "OPENING_S", 0.1)
    port = free_port()
    with pytest.raises(StudyError, match=r"must be reachable, tried for 0\.1 s") as told:
        open_storage(f"postgresql://nas:{PASSWORD}@127.0.0.1:{port}/nas")
    assert PASSWORD not in str(told.value)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with")
def test_trials_are_read_as_optuna_reads_them(server: Postgres) -> None:
    study = open_study(server.url, "reading", identity=IDENTITY)
    attach_sampler(study, problem(Trainer()), "random", seed=0)
    prepare(study, SURVEY.spread(BUDGET_MS, STARTUP_TRIALS), local=False)
    run_trials(study, problem(Trainer()), trials=5)
    problem(Trainer()).space.sample(study.ask())  # one that is running
    storage = study._storage._backend  # type: ignore[attr-defined]
    every = RDBStorage._get_trials(storage, study._study_id, None, set(), -1)
    assert {one.state.name for one in every} >= {"COMPLETE", "RUNNING", "WAITING"}
    for included, greater in ((set(), -1), ({every[0]._trial_id, every[-1]._trial_id}, every[2]._trial_id)):
        asked = (study._study_id, None, included, greater)
        read, expected = storage._get_trials(*asked), RDBStorage._get_trials(storage, *asked)
        assert read == expected
        assert [one.user_attrs for one in read] == [one.user_attrs for one in expected]
    for one in every:
        told = storage.get_trial(one._trial_id)
        assert told == RDBStorage.get_trial(storage, one._trial_id)
        assert list(told.params) == list(RDBStorage.get_trial(storage, one._trial_id).params)
    storage.engine.dispose()


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with")
def test_what_is_told_of_a_trial_is_written_as_optuna_writes_it_and_never_once_it_has_ended(server: Postgres) -> None:
    study = open_study(server.url, "telling", identity=IDENTITY)
    storage = study._storage._backend  # type: ignore[attr-defined]
    trial_id = study.ask()._trial_id

    def tell(numbers: Sequence[float]) -> None:
        for step, number in enumerate(numbers):
            storage.set_trial_intermediate_value(trial_id, step, number)
            storage.set_trial_user_attr(trial_id, f"of step {step}", {"number": str(number)})
            storage.set_trial_system_attr(trial_id, f"of step {step}", [number, None, "ä"])

    tell((0.0, 1e300, math.nan, math.inf))
    tell((1.0, -math.inf))
    kept = storage.get_trial(trial_id)
    assert list(kept.intermediate_values) == [0, 1, 2, 3]
    assert str(list(kept.intermediate_values.values())) == "[1.0, -inf, nan, inf]"
    assert kept.user_attrs["of step 1"] == {"number": "-inf"}
    assert kept.system_attrs["of step 1"] == [-math.inf, None, "ä"]
    assert str(kept) == str(RDBStorage.get_trial(storage, trial_id))
    storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [math.inf])
    ended = storage.get_trial(trial_id)
    with pytest.raises(UpdateFinishedTrialError):
        tell((2.0,))
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial_id, "late", 1)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_system_attr(trial_id, "late", 1)
    assert str(storage.get_trial(trial_id)) == str(ended)
    for unknown in (lambda: storage.get_trial(10**6), lambda: storage.set_trial_user_attr(10**6, "a", 1)):
        with pytest.raises(KeyError):
            unknown()
    storage.engine.dispose()

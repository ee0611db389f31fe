"""A study behind a proxy: known to be the same, waited for while it is away, and the dead are told from the living."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas import database
from nas.claims import beating, in_flight, reclaim
from nas.errors import StudyError
from nas.outcomes import count_outcomes
from nas.proxy import BEAT, ProxyStorage, serve
from nas.storage import open_storage, open_study
from nas.study import STARTUP_TRIALS, attach_sampler, prepare, run_trials
from tests.nas.test_study import BUDGET_MS, IDENTITY, SURVEY, Trainer, problem
from tests.shared import free_port

pytest.importorskip("grpc", reason="the extra grpc is not installed")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    server = serve(open_storage(f"sqlite:///{tmp_path / 'study.db'}"), host="127.0.0.1", port=port)
    yield f"grpc://127.0.0.1:{port}"
    server.stop(grace=None)


def test_a_search_through_a_proxy_is_in_the_storage_behind_it(url: str, tmp_path: Path) -> None:
    study = open_study(url, "search", identity=IDENTITY)
    attach_sampler(study, problem(Trainer()), "random", seed=0)
    prepare(study, SURVEY.spread(BUDGET_MS, STARTUP_TRIALS), local=False)
    run_trials(study, problem(Trainer()), trials=4)
    behind = open_study(f"sqlite:///{tmp_path / 'study.db'}", "search", identity=IDENTITY)
    outcomes = count_outcomes(behind)
    assert outcomes["complete"] + outcomes["pruned"] == 4
    with pytest.raises(StudyError, match="made for another data"):
        open_study(url, "search", identity={**IDENTITY, "data": ["others"]})


def test_who_counts_on_lives_and_who_does_not_is_replaced(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(database, "GRACE_S", 0.5)
    study = open_study(url, "search", identity=IDENTITY)
    prepare(study, SURVEY.spread(BUDGET_MS, STARTUP_TRIALS), local=False)
    dead, living = study.ask(), study.ask()
    problem(Trainer()).space.sample(dead)
    with beating(study, living._trial_id):
        assert {trial.number for trial in in_flight(study, study.trials)} == {dead.number, living.number}
        while study.trials[dead.number].state.name == "RUNNING":  # until it has been silent for long enough
            reclaim(study, study.trials)
            time.sleep(0.05)
    assert study.trials[living.number].state.name == "RUNNING"
    assert study.trials[living.number].user_attrs[BEAT] > 1
    assert study.trials[-1].state.name == "WAITING"
    assert study.trials[-1].system_attrs["fixed_params"] == study.trials[dead.number].params


def test_a_proxy_that_was_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "TRY_EVERY_S", 0.05)
    port, behind = free_port(), open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    server = serve(behind, host="127.0.0.1", port=port)
    study = open_study(f"grpc://127.0.0.1:{port}", "search", identity=IDENTITY)
    storage = study._storage
    assert isinstance(storage, ProxyStorage)
    before, heard = storage.reached_at, list[str]()
    storage.on_wait = heard.append
    server.stop(grace=None).wait()
    started: list[object] = []

    def come_back(seconds: float) -> None:
        """When somebody has begun to wait for it."""
        if not started:
            started.append(serve(behind, host="127.0.0.1", port=port))

    monkeypatch.setattr(time, "sleep", come_back)
    study.set_user_attr("after", 1)
    assert started
    assert study.user_attrs["after"] == 1
    assert storage.reached_at > before
    assert len(heard) == 1 and heard[0].startswith(
        f"waiting for the study's storage, grpc://127.0.0.1:{port}, to answer ("
    )
    started[0].stop(grace=None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", ["grpc://", "grpc://host:port"])
def test_a_proxy_needs_an_address(url: str) -> None:
    with pytest.raises(StudyError, match="grpc://host:13000"):
        open_storage(url)


def test_a_proxy_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "OPENING_S", 0.1)
    with pytest.raises(StudyError, match=r"must be reachable, tried for 0\.1 s"):
        open_storage(f"grpc://127.0.0.1:{free_port()}")


def test_where_it_listens_is_told_at_once_through_a_pipe(tmp_path: Path) -> None:
    port = free_port()
    command = ["proxy", "--storage", f"sqlite:///{tmp_path / 'study.db'}", "--port", str(port), "--json"]
    with subprocess.Popen([sys.executable, "-m", "nas", *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        patience = threading.Timer(60, process.kill)  # a line that never comes would be waited for for ever
        patience.start()
        line = process.stdout.readline()
        process.terminate()
        patience.cancel()
    assert json.loads(line) == {"url": f"grpc://localhost:{port}"}

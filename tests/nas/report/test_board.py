"""The dashboard on a run: served for real, with constraints, notes and the report where it looks for them."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.errors import ReportError
from nas.report.board import attach_architectures, attach_report, server
from nas.sampling.history import CANDIDATE
from nas.storage import open_storage
from tests.nas.report.runs import search_run

pytest.importorskip("optuna_dashboard", reason="the extra `dashboard` is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@contextmanager
def serving(url: str, run: Path | None) -> Iterator[str]:
    served = server(url, host="127.0.0.1", port=0, run=run)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()
        thread.join()


def got(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.loads(answer.read())


def test_trials_report_and_constraints_are_shown(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run")
    url = f"sqlite:///{run / 'study.db'}"
    study = optuna.load_study(study_name="search", storage=url)
    over = study.ask()
    over.set_constraint("latency", 1.5)
    study.tell(over, state=optuna.trial.TrialState.PRUNED)
    for report in ("<html>before</html>", "<html>the report</html>"):  # the second one takes the first one's place
        attach_architectures(open_storage(url), "search")
        attach_report(open_storage(url), run, "search", report)
    with serving(url, run) as address:
        (listed,) = got(f"{address}/api/studies")["study_summaries"]
        detail = got(f"{address}/api/studies/{listed['study_id']}?after=0")
        assert len(detail["artifacts"]) == 1
        assert len(list((run / "artifacts").iterdir())) == 1
        told = {trial["number"]: trial for trial in detail["trials"]}
        assert told[over.number]["constraints"] == [1.5]
        for trial in study.get_trials():
            if CANDIDATE in trial.user_attrs:
                assert trial.user_attrs[CANDIDATE]["fingerprint"] in told[trial.number]["note"]["body"]
        (artifact,) = detail["artifacts"]
        with urllib.request.urlopen(f"{address}/artifacts/{listed['study_id']}/{artifact['artifact_id']}") as answer:
            assert answer.read() == b"<html>the report</html>"


def test_an_address_in_use_is_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with serving(url, None) as address, pytest.raises(ReportError, match="--port"):
        server(url, host="127.0.0.1", port=int(address.rpartition(":")[2]))


def test_a_missing_study_is_one_line(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run")
    with pytest.raises(ReportError, match="other"):
        attach_report(open_storage(f"sqlite:///{run / 'study.db'}"), run, "other", "")


def test_architectures_are_shown_without_a_run_as_well(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run")
    url = f"sqlite:///{run / 'study.db'}"
    foreign = optuna.create_study(storage=url, study_name="somebody else's")
    foreign.add_trial(optuna.trial.create_trial(value=0.5, user_attrs={CANDIDATE: "a name"}))
    attach_architectures(open_storage(url))
    with serving(url, None) as address:
        for listed in got(f"{address}/api/studies")["study_summaries"]:
            trials = got(f"{address}/api/studies/{listed['study_id']}?after=0")["trials"]
            assert all(bool(trial["note"]["body"]) == (listed["study_name"] == "search") for trial in trials)

"""Other limits open another study, which knows what was trained before."""

import sqlite3
from pathlib import Path

import pytest
from optuna.trial import TrialState

from nas.adoption import adopt
from nas.errors import StudyError
from nas.limits import Reward
from nas.outcomes import completed, count_outcomes
from nas.sampling.history import CANDIDATE, RUNGS
from nas.storage import FORMAT, IDENTITY, open_storage, open_study
from nas.study import STARTUP_TRIALS, Problem, attach_sampler, prepare, run_trials
from tests.nas.sampling.spaces import BUDGET_MS, SPACE, SURVEY, predict, score


@pytest.mark.parametrize("pareto", [False, True])
def test_known_trials_teach_a_search_of_another_budget_and_count_beside_its_own(tmp_path: Path, pareto: bool) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    asked = []

    def train(architecture, rung):  # type: ignore[no-untyped-def]
        asked.append(architecture.fingerprint)
        return score(architecture, rung)

    for share, trials, new, known in ((0.5, 14, 14, 0), (0.3, 6, 6, 14), (0.5, 14, 0, 0), (0.7, 9, 9, 20)):
        budget_ms = SURVEY.quantile_ms(share)
        reward = None if pareto else Reward("soft", budget_ms)
        wanted = Problem(SPACE, predict, budget_ms, train, 1, pareto=pareto, reward=reward)
        study = open_study(url, "search", identity={"space": "s"}, limits={"budget_ms": budget_ms}, costs=int(pareto))
        before = len(asked)
        assert adopt(study, wanted) == known
        attach_sampler(study, wanted, seed=0)
        prepare(study, SURVEY.spread(budget_ms, STARTUP_TRIALS), local=True)
        run_trials(study, wanted, trials=trials)
        assert len(asked) - before == new
        assert count_outcomes(study)["adopted"] == (known if share != 0.5 else 0)
        assert all(one.predicted_ms <= budget_ms for one in completed(study))
        for trial in study.get_trials(states=(TrialState.COMPLETE,)):
            if CANDIDATE in trial.user_attrs:
                told = wanted.values(trial.user_attrs[RUNGS][-1]["value"], trial.user_attrs[CANDIDATE]["predicted_ms"])
                assert trial.values == pytest.approx(told)
    assert len(set(asked)) == len(asked)
    assert len(completed(study)) == len(asked)  # what others have trained within the budget is a finalist as well


def test_only_studies_asked_for_by_the_same_name_are_taken_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    wanted = Problem(SPACE, predict, BUDGET_MS, score, 1)
    first = open_study(url, "search", identity={}, limits={"budget_ms": BUDGET_MS})
    attach_sampler(first, wanted, seed=0)
    run_trials(first, wanted, trials=2)
    other = open_study(url, "search-of-another", identity={}, limits={"budget_ms": BUDGET_MS})
    assert adopt(other, wanted) == 0
    tighter = open_study(url, "search", identity={}, limits={"budget_ms": BUDGET_MS / 2})
    assert adopt(tighter, Problem(SPACE, predict, BUDGET_MS / 2, score, 1)) == 2


def test_networks_to_start_with_are_queued_unless_they_are_known(tmp_path: Path) -> None:
    study = open_study(f"sqlite:///{tmp_path / 'study.db'}", "search", identity={})
    wanted = Problem(SPACE, predict, BUDGET_MS, score, 1)
    attach_sampler(study, wanted, seed=0)
    first, second, third = SURVEY.spread(BUDGET_MS, 3)
    prepare(study, [second], given=[first], local=True)
    run_trials(study, wanted, trials=2)
    prepare(study, [second], given=[first, third], local=True)
    assert [one.system_attrs["fixed_params"] for one in study.trials if one.state == TrialState.WAITING] == [third]


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_study(url, "search", identity={"space": "s"})
    with pytest.raises(StudyError, match="was made for another space"):
        open_study(url, "search", identity={"space": "t"})


def test_copies_beyond_the_limits_teach_and_are_no_finalists(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = open_study(url, "search", identity={}, limits={"budget_ms": BUDGET_MS})
    wanted = Problem(SPACE, predict, BUDGET_MS, score, 1)
    attach_sampler(first, wanted, seed=0)
    prepare(first, SURVEY.spread(BUDGET_MS, 5), local=True)
    run_trials(first, wanted, trials=5)
    second = open_study(url, "search", identity={}, limits={"budget_ms": 1e-9})
    assert second.study_name == "search-1e-09ms"
    assert adopt(second, Problem(SPACE, predict, 1e-9, score, 1)) == 5
    assert count_outcomes(second) == {"adopted": 5}
    assert completed(second) == []
    known = {trial.user_attrs[CANDIDATE]["fingerprint"]: trial.value for trial in first.trials}
    assert {trial.user_attrs[CANDIDATE]["fingerprint"]: trial.value for trial in second.trials} == known


def test_a_study_of_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = open_study(url, "search", identity={"space": "s"})
    study.set_user_attr(IDENTITY, {"space": "s", "format": FORMAT + 1})
    with pytest.raises(StudyError, match=f"must be of format {FORMAT}, got {FORMAT + 1}: a newer version .* upgrade"):
        open_study(url, "search", identity={"space": "s"})


@pytest.mark.parametrize(
    ("revision", "told"),
    [
        ("v99.0.0.a", r"study\.db: was made by a newer version of Optuna \(99\.1\), this is .* pip install -U optuna"),
        ("v3.0.0.d", r"study\.db: was made by an older version of Optuna \(99\.1\), this is .*`optuna storage upgrade"),
    ],
)
def test_a_storage_of_another_optuna_says_what_to_do(tmp_path: Path, revision: str, told: str) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_study(url, "search", identity={})
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.execute("UPDATE version_info SET library_version = '99.1'")
    connection.close()
    with pytest.raises(StudyError, match=told) as refused:
        open_storage(url)
    assert "\n" not in str(refused.value)

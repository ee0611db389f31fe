"""Other limits open another study, which knows what was trained before."""

from pathlib import Path

import pytest

from nas.errors import StudyError
from nas.sampling.history import CANDIDATE
from nas.storage import adopt, open_study
from nas.study import (
    INFEASIBLE,
    STARTUP_TRIALS,
    Problem,
    attach_sampler,
    completed,
    count_outcomes,
    prepare,
    run_trials,
)
from tests.nas.sampling.spaces import BUDGET_MS, SPACE, SURVEY, predict, score


@pytest.mark.parametrize("pareto", [False, True])
def test_known_trials_serve_a_search_of_another_budget(tmp_path: Path, pareto: bool) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    asked = []

    def train(architecture, rung):  # type: ignore[no-untyped-def]
        asked.append(architecture.fingerprint)
        return score(architecture, rung)

    for share, trials in ((0.5, 14), (0.3, 16), (0.5, 14)):
        budget_ms = SURVEY.quantile_ms(share)
        wanted = Problem(SPACE, predict, budget_ms, train, 1, pareto=pareto)
        study = open_study(url, "search", identity={"space": "s"}, limits={"budget_ms": budget_ms}, pareto=pareto)
        adopted = adopt(study, lambda one, wanted=wanted: wanted.judge(one).violations, infeasible=INFEASIBLE)  # type: ignore[misc]
        assert adopted == (14 if share == 0.3 else 0)
        attach_sampler(study, wanted, seed=0)
        prepare(study, SURVEY.spread(budget_ms, STARTUP_TRIALS), local=True)
        run_trials(study, wanted, trials=trials)
        assert all(one.predicted_ms <= budget_ms for one in completed(study))
    assert len(set(asked)) == len(asked)
    assert 14 < len(asked) < 30  # some of the first fourteen were within the smaller budget, too


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_study(url, "search", identity={"space": "s"})
    with pytest.raises(StudyError, match="was made for another space"):
        open_study(url, "search", identity={"space": "t"})


def test_copies_keep_what_was_trained(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = open_study(url, "search", identity={}, limits={"budget_ms": BUDGET_MS})
    wanted = Problem(SPACE, predict, BUDGET_MS, score, 1)
    attach_sampler(first, wanted, seed=0)
    prepare(first, SURVEY.spread(BUDGET_MS, 5), local=True)
    run_trials(first, wanted, trials=5)
    second = open_study(url, "search", identity={}, limits={"budget_ms": 1e-9})
    assert second.study_name == "search-1e-09ms"
    assert adopt(second, lambda _: {"latency": 1.0}, infeasible=INFEASIBLE) == 5
    assert count_outcomes(second) == {INFEASIBLE: 5}
    known = {trial.user_attrs[CANDIDATE]["fingerprint"]: trial.value for trial in first.trials}
    assert {trial.user_attrs[CANDIDATE]["fingerprint"]: trial.value for trial in second.trials} == known

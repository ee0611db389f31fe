"""Every sampler draws candidates within the limits, each once; ours finds more than chance."""

import statistics
from typing import Any

import optuna
import pytest

from nas.costs import costs_of
from nas.limits import Limit
from nas.outcomes import completed, count_outcomes, count_redraws
from nas.sampling import auto
from nas.sampling.candidate_sampler import SAMPLERS, SamplerName
from nas.sampling.history import CANDIDATE, OUTCOME, history
from nas.sampling.surrogate import Surrogate
from nas.study import STARTUP_TRIALS, Problem, attach_sampler, prepare, run_trials
from searchspace.architecture import lower
from tests.nas.sampling.spaces import BUDGET_MS, SPACE, SURVEY, predict, problem, score

optuna.logging.set_verbosity(optuna.logging.ERROR)


def searched(name: SamplerName, wanted: Problem, *, trials: int, seed: int = 0) -> optuna.Study:
    directions = ["maximize", *["minimize"] * len(wanted.against)] if wanted.pareto else ["maximize"]
    study = optuna.create_study(directions=directions)
    attach_sampler(study, wanted, name, seed=seed)
    prepare(study, SURVEY.spread(BUDGET_MS, STARTUP_TRIALS), local=True)
    run_trials(study, wanted, trials=trials)
    return study


@pytest.mark.parametrize("pareto", [False, True])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "gp" else []) for name in SAMPLERS]
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_nothing_is_wasted(name: SamplerName, pareto: bool) -> None:
    study = searched(name, problem(pareto=pareto), trials=STARTUP_TRIALS + 4)
    assert count_outcomes(study) == {"complete": STARTUP_TRIALS + 4}
    fingerprints = [trial.user_attrs[CANDIDATE]["fingerprint"] for trial in study.trials]
    assert len(set(fingerprints)) == len(fingerprints)
    for candidate in completed(study):
        assert candidate.predicted_ms <= BUDGET_MS
        assert SPACE.contains(candidate.architecture)
    if name != "gp":  # which may have learnt by then what is feasible
        assert count_redraws(study) > 0


@pytest.mark.parametrize("against", [("params",), ("peak-bytes", "ms"), ("ms", "params", "weight-bytes")])
@pytest.mark.parametrize("name", ["auto", "tpe", "nsga2"])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_front_may_be_against_other_costs_and_the_budget_holds_all_the_same(
    name: SamplerName, against: tuple[str, ...]
) -> None:
    study = searched(name, problem(pareto=True, rungs=2, against=against), trials=STARTUP_TRIALS + 4)
    found = completed(study)
    assert len(found) + count_outcomes(study)["pruned"] == STARTUP_TRIALS + 4
    for one in found:
        assert one.predicted_ms <= BUDGET_MS
        assert one.costs == costs_of(one.architecture, one.predicted_ms, against=against, limits=())
    told = [trial.values for trial in study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))]
    assert told == [[one.score, *one.costs.values()] for one in found]


def test_ours_extends_a_front_of_two_costs_further_than_chance() -> None:
    against = ("params", "peak-bytes")
    graphs = [lower(SPACE.sample(optuna.trial.FixedTrial(dict(answers)))) for answers in SURVEY.answers[::10]]
    levels = [(graph.params, graph.peak_activation_bytes) for graph in graphs]

    def reached(study: optuna.Study) -> float:
        """The best accuracy at no more than the costs of a network, summed over many networks: the hypervolume, roughly."""
        found = [(one.accuracy, tuple(one.costs.values())) for one in completed(study)]
        return sum(
            max((accuracy for accuracy, own in found if own[0] <= params and own[1] <= peak), default=0.0)
            for params, peak in levels
        )

    def mean(name: SamplerName) -> float:
        wanted = problem(pareto=True, against=against)
        return statistics.mean(reached(searched(name, wanted, trials=30, seed=seed)) for seed in range(2))

    assert mean("auto") > mean("random")


def test_ours_finds_better_networks_than_chance() -> None:
    found = {
        name: statistics.mean(
            max(one.accuracy for one in completed(searched(name, problem(), trials=30, seed=seed))) for seed in range(3)
        )
        for name in ("auto", "random")
    }
    assert found["auto"] > found["random"]


def test_further_limits_hold_for_every_candidate() -> None:
    sizes = [lower(SPACE.sample(optuna.trial.FixedTrial(dict(answers)))).params for answers in SURVEY.answers]
    most = statistics.median(sizes)
    limited = Problem(
        SPACE, predict, BUDGET_MS, score, 1, limits=(Limit("params", most, lambda one: lower(one).params),)
    )
    study = searched("auto", limited, trials=15)
    assert len(completed(study)) == 15
    assert all(lower(one.architecture).params <= most for one in completed(study))
    infeasible = [trial for trial in study.trials if trial.user_attrs[OUTCOME] == "infeasible"]
    assert all(trial.constraints["params"] > 0 for trial in infeasible)


def test_the_surrogate_learns_from_the_best_and_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "MOST", 8)
    fitted: list[int] = []
    fit = auto.fit

    def noted(rows: auto.Array, *rest: Any, **options: Any) -> Surrogate:
        fitted.append(len(rows))
        return fit(rows, *rest, **options)

    monkeypatch.setattr(auto, "fit", noted)
    study = searched("auto", problem(), trials=STARTUP_TRIALS + 4)
    assert max(fitted) == 8
    seen = history(study.trials)
    finals = {one.fingerprint: (one.scores[-1], 0.0) for one in seen}
    chosen = auto._telling(seen, finals)
    assert len({one.fingerprint for one in chosen}) == 8
    best = max(seen, key=lambda one: one.scores[-1])
    assert best in chosen and seen[-1] in chosen

"""A candidate is stopped by candidates that are no slower, and by no others."""

import random

import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from nas.pruning import NoDearerPruner

PRUNER = NoDearerPruner(latency=("candidate", "ms"), peers=3)
optuna.logging.set_verbosity(optuna.logging.ERROR)


def judged(others: list[tuple[float, float]], own_ms: float, own: float) -> bool:
    """Whether a trial is stopped beside others, each given by its milliseconds and its value on rung 0."""
    study = optuna.create_study(direction="maximize")
    for ms, value in others:
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=value,
                intermediate_values={0: value},
                params={"x": 0.0},
                distributions={"x": FloatDistribution(0, 1)},
                user_attrs={"candidate": {"ms": ms}},
            )
        )
    trial = study.ask()
    trial.set_user_attr("candidate", {"ms": own_ms})
    trial.report(own, 0)
    return PRUNER.prune(study, study.get_trials()[-1])


values = st.lists(st.floats(0, 1), min_size=3, max_size=8)


@given(values, st.floats(0, 1))
def test_slower_candidates_never_stop_it(accuracies: list[float], own: float) -> None:
    assert not judged([(2.0, accuracy) for accuracy in accuracies], 1.0, own)


@given(values)
def test_one_worse_than_all_that_are_no_slower_is_stopped(accuracies: list[float]) -> None:
    assert judged([(1.0, accuracy + 0.1) for accuracy in accuracies], 1.0, 0.05)


@given(values)
def test_one_better_than_all_that_are_no_slower_goes_on(accuracies: list[float]) -> None:
    assert not judged([(0.5, accuracy) for accuracy in accuracies], 1.0, 1.1)


def test_too_few_peers_stop_nothing_and_trials_without_latency_do_not_count() -> None:
    assert not judged([(0.5, 0.9), (0.5, 0.9)], 1.0, 0.1)
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.report(0.1, 0)
    assert not PRUNER.prune(study, study.get_trials()[-1])


def test_studies_of_two_objectives_are_judged_by_what_trials_wrote_down() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for index in range(6):
        study.add_trial(_trained(1.0, [index / 10, index / 10 + 0.3]))
    for ms, own, stopped in ((1.0, 0.05, True), (1.0, 0.36, False), (0.5, 0.0, False)):
        trial = study.ask()
        trial.set_user_attr("candidate", {"ms": ms})
        trial.set_user_attr("rungs", [{"value": own}])
        assert PRUNER.prune(study, study.get_trials()[-1]) is stopped
        study.tell(trial, state=TrialState.FAIL)


COSTS = st.fixed_dictionaries({"ms": st.floats(0, 1), "params": st.floats(0, 1)})
OTHERS = st.lists(st.tuples(COSTS, st.lists(st.floats(0, 1), min_size=2, max_size=2)), min_size=12, max_size=20)


@given(OTHERS, COSTS, st.floats(0, 1))
def test_only_those_no_dearer_in_any_cost_stop_it(
    others: list[tuple[dict[str, float], list[float]]], own_costs: dict[str, float], own: float
) -> None:
    def stopped(shown: list[tuple[dict[str, float], list[float]]]) -> bool:
        study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
        for costs, curve in shown:
            known = {"candidate": {"ms": costs["ms"], "costs": costs}, "rungs": [{"value": value} for value in curve]}
            values = [curve[-1], *costs.values()]
            study.add_trial(create_trial(state=TrialState.COMPLETE, values=values, user_attrs=known))
        trial = study.ask()
        trial.set_user_attr("candidate", {"ms": own_costs["ms"], "costs": own_costs})
        trial.set_user_attr("rungs", [{"value": own}])
        return PRUNER.prune(study, study.get_trials()[-1])

    def no_dearer(costs: dict[str, float]) -> bool:
        return all(costs[name] <= own_costs[name] for name in costs)

    assert not stopped([one for one in others if not no_dearer(one[0])])
    below = [({name: min(costs[name], own_costs[name]) for name in costs}, curve) for costs, curve in others]
    assert stopped(below) is stopped([(own_costs, curve) for _, curve in below])
    assert stopped([(costs, [1.5, 1.5]) for costs, _ in below])


def climbing(curves: list[tuple[float, list[float]]], own_ms: float, own: float) -> bool:
    """Whether a trial is stopped on its first rung beside others that went to the end, when most of them count for nothing."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for ms, curve in curves:
        study.add_trial(_trained(ms, curve))
    trial = study.ask()
    trial.set_user_attr("candidate", {"ms": own_ms})
    trial.set_user_attr("rungs", [{"value": own}])
    pruner = NoDearerPruner(latency=("candidate", "ms"), peers=10**6, complete=10, luck=1.5)
    return pruner.prune(study, study.get_trials()[-1])


@given(st.floats(0.0, 0.02), st.integers(0, 2**16))
def test_what_luck_cannot_bring_to_the_front_is_stopped_and_what_it_can_goes_on(noise: float, seed: int) -> None:
    source = random.Random(seed)
    curves = [(1.0, [at / 20, at / 20 + 0.3 + source.uniform(-noise, noise)]) for at in range(12)]
    assert climbing(curves, 1.0, 0.1)  # would end near 0.4, with 0.85 reached
    assert not climbing(curves, 1.0, 0.62)
    assert not climbing(curves, 0.9, 0.1)  # nothing as fast was seen
    assert not climbing(curves[:9], 1.0, 0.1)  # too few to know what a score on the first rung comes to


def test_the_wider_final_scores_scatter_the_longer_one_is_hoped_for() -> None:
    steady = [(1.0, [at / 20, at / 20 + 0.3]) for at in range(12)]
    scattered = [(1.0, [at / 20, at / 20 + 0.3 + (-1) ** at * 0.3]) for at in range(12)]
    assert climbing(steady, 1.0, 0.4)
    assert not climbing(scattered, 1.0, 0.4)


def _trained(ms: float, curve: list[float]) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        values=[curve[-1], ms],
        user_attrs={"candidate": {"ms": ms}, "rungs": [{"value": value} for value in curve]},
    )

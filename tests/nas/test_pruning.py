"""A candidate is stopped by candidates that are no slower, and by no others."""

import optuna
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from nas.pruning import NoSlowerPruner

PRUNER = NoSlowerPruner(latency=("candidate", "ms"), peers=3)
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


def _trained(ms: float, curve: list[float]) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        values=[curve[-1], ms],
        user_attrs={"candidate": {"ms": ms}, "rungs": [{"value": value} for value in curve]},
    )

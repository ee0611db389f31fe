"""Taking over what another study of the same search found out: one of other limits, under the same name."""

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.outcomes import ADOPTED, COMPLETE, INFEASIBLE, PRUNED
from nas.sampling.history import CANDIDATE, OUTCOME, RUNGS
from nas.storage import IDENTITY, base_name, failures_told
from nas.study import Problem
from searchspace.architecture import Architecture


@failures_told()
def adopt(study: optuna.Study, problem: Problem) -> int:
    """Give a new study what those of the same name and identity have trained under other limits.

    Such trials teach, and may be finalists, but count as no candidates of this study. Latencies, limits and rewards are this
    study's.

    Args:
        study: the study; left as it is if it has trials.
        problem: what it looks for.

    Returns:
        How many trials those were.
    """
    if study.get_trials(deepcopy=False):
        return 0
    storage, identity = study._storage, study.user_attrs[IDENTITY]
    copied: set[str] = set()
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        name, attributes = summary.study_name, summary.user_attrs
        if name == study.study_name or attributes.get(IDENTITY) != identity or base_name(summary) != base_name(study):
            continue
        other = optuna.load_study(study_name=name, storage=storage)
        for trial in other.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            candidate = trial.user_attrs.get(CANDIDATE)
            if candidate is not None and candidate["fingerprint"] not in copied:
                copied.add(candidate["fingerprint"])
                study.add_trial(_copy(trial, problem, name))
    return len(copied)


def _copy(trial: FrozenTrial, problem: Problem, source: str) -> FrozenTrial:
    """The trial as this study would have told it."""
    architecture = Architecture.from_dict(trial.user_attrs[CANDIDATE]["architecture"])
    judged = problem.judge(architecture)
    complete = trial.state == TrialState.COMPLETE
    known = {
        ADOPTED: trial.user_attrs.get(ADOPTED, source),
        CANDIDATE: judged.candidate(architecture),
        OUTCOME: INFEASIBLE if judged.excess > 0 else COMPLETE if complete else PRUNED,
    }
    score = trial.user_attrs[RUNGS][-1]["value"]
    return create_trial(
        state=trial.state,
        values=problem.values(score, judged.ms, judged.costs) if complete else trial.values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs | known,
        intermediate_values=trial.intermediate_values,
        constraints=dict(judged.violations),
    )

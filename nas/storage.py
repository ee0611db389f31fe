"""Where studies live: opening one in an Optuna storage, and taking over what another one of the same kind found out."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import sqlalchemy.event
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.database import open_server
from nas.errors import StudyError
from nas.proxy import SCHEME, open_proxy
from nas.sampling.history import CANDIDATE, OUTCOME
from searchspace.architecture import Architecture

FORMAT = 1
SQLITE_PATIENCE_S = 60.0
IDENTITY, LIMITS = "identity", "limits"
STUDY_FILE = "study.json"  # in a run's folder: which study of the storage was opened last
Violations = Callable[[Architecture], Mapping[str, float]]
"""By how much a network is beyond each limit, by name; 0 or less: it is within."""


def open_study(
    url: str,
    name: str,
    *,
    identity: Mapping[str, Any],
    limits: Mapping[str, float] | None = None,
    pareto: bool = False,
) -> optuna.Study:
    """The study `name` in an Optuna storage, made if it is not there; one of its own for every set of limits.

    Args:
        url: such as ``sqlite:///study.db``, ``postgresql://…`` or ``grpc://…``, a proxy's.
        name: the study's; that of other limits has them in its name.
        identity: fingerprints of what is searched; a study of anything else is refused.
        limits: what a candidate must stay within.
        pareto: whether it has two objectives: accuracy, to maximise, and milliseconds, to minimise.

    Raises:
        StudyError: the storage cannot be used, or the study is of something else.
    """
    storage, identity, limits = open_storage(url), {"format": FORMAT, **identity}, dict(limits or {})
    study = _opened(storage, name, identity=identity, pareto=pareto)
    if study.user_attrs.get(LIMITS, limits) != limits:
        study = _opened(storage, f"{name}-{_limits_name(limits)}", identity=identity, pareto=pareto)
    study.set_user_attr(LIMITS, limits)
    return study


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """An Optuna storage, with its tables made where they are missing.

    Raises:
        StudyError: it cannot be reached, or there is no such kind.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if url.startswith("sqlite:"):
            return _sqlite_storage(url)
        if url.startswith(f"{SCHEME}:"):
            return open_proxy(url)
        return optuna.storages.get_storage(open_server(url) if "://" in url else url)
    except StudyError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("sqlalchemy", "optuna", "builtins"):
            raise
        raise StudyError(f"the study's storage cannot be used ({first_line(error)}); check --storage") from error


def _sqlite_storage(url: str) -> optuna.storages.BaseStorage:
    """A file that several processes may work on: each transaction has it for itself from its start.

    SQLite knows no locks on rows, which Optuna relies on so that no two processes take the same queued trial.
    """
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_PATIENCE_S}})
    sqlalchemy.event.listen(storage.engine, "connect", _leave_transactions_to_us)
    sqlalchemy.event.listen(storage.engine, "begin", _begin_alone)
    storage.engine.dispose()  # connections made before
    return optuna.storages.get_storage(storage)


def _leave_transactions_to_us(connection: Any, record: object) -> None:
    connection.isolation_level = None


def _begin_alone(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def adopt(study: optuna.Study, violations: Violations, *, infeasible: str) -> int:
    """Give a new study what studies of the same kind but of other limits have trained; returns how many trials that were.

    Args:
        study: the study; left as it is if it has trials.
        violations: of this study's limits.
        infeasible: outcome of a trial that is beyond them; it still teaches, but counts as no candidate.
    """
    if study.get_trials(deepcopy=False):
        return 0
    storage, identity = study._storage, study.user_attrs[IDENTITY]
    copied: set[str] = set()
    for summary in optuna.get_all_study_summaries(storage, include_best_trial=False):
        if summary.study_name == study.study_name or summary.user_attrs.get(IDENTITY) != identity:
            continue
        other = optuna.load_study(study_name=summary.study_name, storage=storage)
        for trial in other.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)):
            candidate = trial.user_attrs.get(CANDIDATE)
            if candidate is not None and candidate["fingerprint"] not in copied:
                copied.add(candidate["fingerprint"])
                study.add_trial(_copy(trial, violations(Architecture.from_dict(candidate["architecture"])), infeasible))
    return len(copied)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _opened(
    storage: optuna.storages.BaseStorage, name: str, *, identity: Mapping[str, Any], pareto: bool
) -> optuna.Study:
    directions = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE] if pareto else [StudyDirection.MAXIMIZE]
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    except optuna.exceptions.StorageInternalError as error:
        raise StudyError(f"the study's storage cannot be used ({first_line(error)}); check --storage") from error
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(IDENTITY, dict(identity))
    elif known != identity:
        differing = sorted(key for key in known.keys() | identity.keys() if known.get(key) != identity.get(key))
        raise StudyError(
            f"study {name!r} was made for another {', '.join(differing)}; give the same again, or choose another --out or --study"
        )
    return study


def _copy(trial: FrozenTrial, violations: Mapping[str, float], infeasible: str) -> FrozenTrial:
    within = max(violations.values()) <= 0
    return create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs | ({} if within else {OUTCOME: infeasible}),
        intermediate_values=trial.intermediate_values,
        constraints=dict(violations),
    )


def _limits_name(limits: Mapping[str, float]) -> str:
    others = {name: most for name, most in limits.items() if name != "budget_ms"}
    digest = hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()[:6]
    return f"{limits.get('budget_ms', 0):g}ms" + (f"-{digest}" if others else "")

"""Several processes at one study: who works on which trial, and which of two that want the same goes on.

A process writes its name on its trial, and then what it is about to train. Of two trials of one network, and of one more than was
asked for, the one of the lower number goes on: every process sees the claims before its own, so no lock is needed and any storage
will do.

Whether a process lives is known by its process id where the study is a file of this machine, and by heartbeats where it is on a
server. What a dead one was at is queued once more, and goes on from its checkpoints where they can be reached.
"""

import os
import socket
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from functools import partial

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from nas.beating import Beating
from nas.database import ServerStorage
from nas.proxy import ProxyStorage
from nas.sampling.history import CANDIDATE, GIVEN, OUTCOME

WORKER, DEATHS, FAILED = "worker", "deaths", "failed"
LOOKS = 150  # for a trial that was asked for before ours to say what it trains
LOOK_EVERY_S, LOOK_AT_LAST_EVERY_S = 0.02, 0.5
DEATHS_AT_MOST = 5  # of processes at one candidate; then it is taken to be what kills them
UNSIGNED_S = 30.0  # for a process to write its name on its trial


def worker_name(pid: int | None = None) -> str:
    """How a process of this machine, by default this one, is called in a study."""
    return f"{socket.gethostname()}:{pid or os.getpid()}"


def take(study: optuna.Study, trials: Sequence[FrozenTrial]) -> int:
    """Begin a trial, with this process's name on it before anything is decided: the first that is queued, or a new one.

    Args:
        study: the study.
        trials: all of it, as read just before.

    Returns:
        Its id.
    """
    trial_id = _pop(study, trials)
    if trial_id is None:
        trial_id = study._storage.create_new_trial(study._study_id)
    study._storage.set_trial_user_attr(trial_id, WORKER, worker_name())
    return trial_id


def _pop(study: optuna.Study, trials: Sequence[FrozenTrial]) -> int | None:
    for trial in trials:
        if trial.state == TrialState.WAITING:
            with suppress(UpdateFinishedTrialError):
                if study._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                    return trial._trial_id
    return None


def beating(study: optuna.Study, trial_id: int) -> nullcontext[None] | Beating:
    """Tells the others, inside the ``with``, that this process is at the trial."""
    server = _server(study)
    return nullcontext() if server is None else Beating(partial(server.beat, trial_id))


def in_flight(study: optuna.Study, trials: Sequence[FrozenTrial], *, before: int | None = None) -> list[FrozenTrial]:
    """Those of the study's trials that a living process works on; numbered lower than `before`, where it is given.

    Of a study in a file only the processes of this machine are known.
    """
    running = [one for one in trials if one.state == TrialState.RUNNING and (before is None or one.number < before)]
    on_server = _server(study) is not None  # there, what a dead process was at runs until it is reclaimed
    return [trial for trial in running if on_server or _alive(trial)]


def claimed_before(study: optuna.Study, number: int, *, claim: str) -> tuple[list[FrozenTrial], Sequence[FrozenTrial]]:
    """Waits until all who are at trials of lower numbers have said (in user attribute `claim`) what they train.

    Returns:
        Those trials, and all of the study as it was then.
    """
    pause = LOOK_EVERY_S
    for look in range(LOOKS):  # not seconds: while the storage is away nobody can say anything
        trials = study.get_trials(deepcopy=False)
        others = in_flight(study, trials, before=number)
        claimed = [other for other in others if claim in other.user_attrs]
        if len(claimed) == len(others) or look == LOOKS - 1:
            break
        if not reclaim(study, trials):
            time.sleep(pause)
            pause = min(2 * pause, LOOK_AT_LAST_EVERY_S)
    return claimed, trials


def reclaim(study: optuna.Study, trials: Sequence[FrozenTrial]) -> bool:
    """Queue once more what dead processes were at; returns whether there was any.

    Args:
        study: the study.
        trials: all of it, as read just before.
    """
    running, server = [trial for trial in trials if trial.state == TrialState.RUNNING], _server(study)
    if server is None:
        dead = [trial for trial in running if not _alive(trial) and _is_known_here(trial)]
    elif isinstance(server, ProxyStorage):
        silent = server.silent(running)
        dead = [trial for trial in running if trial._trial_id in silent]
    else:
        silent = server.silent(study._study_id, running)
        dead = [trial for trial in running if trial._trial_id in silent]
    for trial in dead:
        requeue(study, trial._trial_id, died=True)
    return bool(dead)


def release(study: optuna.Study, worker: str) -> None:
    """Queue once more what a process was at when it died."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(WORKER) == worker:
            requeue(study, trial._trial_id, died=True)


def requeue(study: optuna.Study, trial_id: int, *, died: bool = False) -> None:
    """Close a trial that was interrupted, and queue the same decisions once more; of several that want to, one does.

    Args:
        study: the study.
        trial_id: of the trial.
        died: whether the process died of it, or its training raised an error. A candidate that many died of failed.
    """
    trial = study._storage.get_trial(trial_id)
    deaths = trial.user_attrs.get(DEATHS, 0) + died
    failed = deaths >= DEATHS_AT_MOST and CANDIDATE in trial.user_attrs
    try:
        if failed:
            study._storage.set_trial_user_attr(trial_id, OUTCOME, FAILED)
        if not study._storage.set_trial_state_values(trial_id, state=TrialState.FAIL):
            return
    except UpdateFinishedTrialError:
        return
    decisions = trial.system_attrs.get("fixed_params", {}) | study._storage.get_trial(trial_id).params
    given = {GIVEN: trial.user_attrs[GIVEN]} if GIVEN in trial.user_attrs else {}
    if (decisions or given) and not failed:
        study.enqueue_trial(decisions, user_attrs={DEATHS: deaths, **given})


def _server(study: optuna.Study) -> ServerStorage | ProxyStorage | None:
    """The server the study is on, if it is on one."""
    backend = getattr(study._storage, "_backend", study._storage)
    return backend if isinstance(backend, (ServerStorage, ProxyStorage)) else None


def _is_known_here(trial: FrozenTrial) -> bool:
    """Whether its process is of this machine, or nobody's name is on it."""
    return WORKER not in trial.user_attrs or _is_of_this_machine(trial)


def _is_of_this_machine(trial: FrozenTrial) -> bool:
    return str(trial.user_attrs.get(WORKER, "")).rpartition(":")[0] == socket.gethostname()


def _alive(trial: FrozenTrial) -> bool:
    """Whether a process of this machine works on the trial, or took it just now; what other machines do is not known here."""
    if WORKER not in trial.user_attrs:
        taken_at = trial.datetime_start
        return taken_at is not None and (datetime.now() - taken_at).total_seconds() < UNSIGNED_S
    if not _is_of_this_machine(trial):
        return False
    try:
        os.kill(int(trial.user_attrs[WORKER].rpartition(":")[2]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True

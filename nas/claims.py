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
from contextlib import nullcontext

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._heartbeat import HeartbeatThread
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.database import ServerStorage
from nas.proxy import Beating, ProxyStorage
from nas.sampling.history import CANDIDATE, OUTCOME

WORKER, DEATHS = "worker", "deaths"
LOOKS = 500  # for a trial that was asked for before ours to say what it trains
LOOK_EVERY_S = 0.02
DEATHS_AT_MOST = 5  # of processes at one candidate; then it is taken to be what kills them


def worker_name(pid: int | None = None) -> str:
    """How a process of this machine, by default this one, is called in a study."""
    return f"{socket.gethostname()}:{pid or os.getpid()}"


def sign(trial: Trial) -> None:
    """Write this process's name on a trial."""
    trial.set_user_attr(WORKER, worker_name())


def beating(study: optuna.Study, trial: Trial) -> nullcontext[None] | HeartbeatThread | Beating:
    """Tells the others, inside the ``with``, that this process is at the trial."""
    server = _server(study)
    if isinstance(server, ProxyStorage):
        return Beating(server, trial._trial_id)
    return nullcontext() if server is None else HeartbeatThread(trial._trial_id, server)


def in_flight(study: optuna.Study, *, before: int | None = None) -> list[FrozenTrial]:
    """Trials that a living process works on; those numbered lower than `before`, where it is given.

    Of a study in a file only the processes of this machine are known.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    on_server = _server(study) is not None  # there, what a dead process was at runs until it is reclaimed
    return [trial for trial in running if (before is None or trial.number < before) and (on_server or _alive(trial))]


def claimed_before(study: optuna.Study, number: int, *, claim: str) -> list[FrozenTrial]:
    """Trials of lower numbers that others are at, once all of them have said (in user attribute `claim`) what they train."""
    for look in range(LOOKS):  # not seconds: while the storage is away nobody can say anything
        others = in_flight(study, before=number)
        claimed = [other for other in others if claim in other.user_attrs]
        if len(claimed) == len(others) or look == LOOKS - 1:
            break
        time.sleep(LOOK_EVERY_S)
    return claimed


def reclaim(study: optuna.Study, *, failed: str) -> None:
    """Queue once more what dead processes were at; a candidate that many died at ends with the outcome `failed`."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    server = _server(study)
    if server is None:
        dead = [trial for trial in running if _is_of_this_machine(trial) and not _alive(trial)]
    elif isinstance(server, ProxyStorage):
        silent = server.silent(running)
        dead = [trial for trial in running if trial._trial_id in silent]
    else:
        for trial in running:
            if WORKER not in trial.user_attrs and trial._trial_id not in server.vouched:
                server.vouched.add(trial._trial_id)  # its process may have died before the first heartbeat
                server.record_heartbeat(trial._trial_id)
        stale = set(server._get_stale_trial_ids(study._study_id)) if server.knows_the_dead else set()
        dead = [trial for trial in running if trial._trial_id in stale]
    for trial in dead:
        if trial.user_attrs.get(DEATHS, 0) + 1 < DEATHS_AT_MOST or CANDIDATE not in trial.user_attrs:
            requeue(study, trial.number, died=True)
        else:
            study._storage.set_trial_user_attr(trial._trial_id, OUTCOME, failed)
            _fail(study, trial._trial_id)


def release(study: optuna.Study, worker: str) -> None:
    """Queue once more what a process was at when it died."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(WORKER) == worker:
            requeue(study, trial.number)


def requeue(study: optuna.Study, number: int, *, died: bool = False) -> None:
    """Close a trial that was interrupted, and queue the same decisions once more; of several that want to, one does."""
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    if not _fail(study, trial_id):
        return
    trial = study._storage.get_trial(trial_id)
    decisions = trial.system_attrs.get("fixed_params", {}) | trial.params
    if decisions:
        study.enqueue_trial(decisions, user_attrs={DEATHS: trial.user_attrs.get(DEATHS, 0) + died})


def _fail(study: optuna.Study, trial_id: int) -> bool:
    """Close a trial as failed; returns False where it was finished before."""
    try:
        return study._storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False


def _server(study: optuna.Study) -> ServerStorage | ProxyStorage | None:
    """The server the study is on, if it is on one."""
    backend = getattr(study._storage, "_backend", study._storage)
    return backend if isinstance(backend, (ServerStorage, ProxyStorage)) else None


def _is_of_this_machine(trial: FrozenTrial) -> bool:
    return str(trial.user_attrs.get(WORKER, "")).rpartition(":")[0] == socket.gethostname()


def _alive(trial: FrozenTrial) -> bool:
    """Whether a process of this machine works on the trial; what other machines do is not known here."""
    if not _is_of_this_machine(trial):
        return False
    try:
        os.kill(int(trial.user_attrs[WORKER].rpartition(":")[2]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True

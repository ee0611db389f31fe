"""Several processes at one study: who works on which trial, and which of two that want the same goes on.

A process writes its name on its trial, and then what it is about to train. Of two trials of one network, and of one more than was
asked for, the one of the lower number goes on: every process sees the claims before its own, so no lock is needed and any storage
will do.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

WORKER = "worker"
PATIENCE_S = 10.0  # for a trial that was asked for before ours to say what it trains
LOOK_EVERY_S = 0.02


def worker_name(pid: int | None = None) -> str:
    """How a process of this machine, by default this one, is called in a study."""
    return f"{socket.gethostname()}:{pid or os.getpid()}"


def sign(trial: Trial) -> None:
    """Write this process's name on a trial."""
    trial.set_user_attr(WORKER, worker_name())


def in_flight(study: optuna.Study, *, before: int | None = None) -> list[FrozenTrial]:
    """Trials that a living process of this machine works on; those numbered lower than `before`, where it is given."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if (before is None or trial.number < before) and _alive(trial)]


def claimed_before(study: optuna.Study, number: int, *, claim: str) -> list[FrozenTrial]:
    """Trials of lower numbers that others are at, once all of them have said (in user attribute `claim`) what they train."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        others = in_flight(study, before=number)
        claimed = [other for other in others if claim in other.user_attrs]
        if len(claimed) == len(others) or time.monotonic() > deadline:
            return claimed
        time.sleep(LOOK_EVERY_S)


def release(study: optuna.Study, worker: str) -> None:
    """Queue once more what a process was at when it died."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get(WORKER) == worker:
            requeue(study, trial.number, trial.params)


def requeue(study: optuna.Study, number: int, params: Mapping[str, Any]) -> None:
    """Close a trial that was interrupted, and queue the same decisions once more."""
    study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
    if params:
        study.enqueue_trial(dict(params))


def _alive(trial: FrozenTrial) -> bool:
    """Whether a process of this machine works on the trial; what other machines do is not known here."""
    host, _, pid = trial.user_attrs.get(WORKER, "").rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True

"""When a candidate stops climbing the rungs: judged against the candidates that are no slower.

A latency is known before training, so a rung can be judged fairly: a fast network that is less accurate than slower ones is
worth finishing, one that is less accurate than networks as fast as itself is not. That keeps the whole front alive, whether the
study has one objective or two (where Optuna itself refuses to report and to prune).
"""

from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from nas.sampling.history import RUNGS


@dataclass(frozen=True)
class NoSlowerPruner(optuna.pruners.BasePruner):
    """Stops a trial whose last value is below a quantile of what no slower trials, finished or running, had on the same rung.

    Attributes:
        latency: user attribute that holds a trial's predicted milliseconds, as (name of a mapping, key in it).
        peers: no slower trials that must have been there, for the quantile to mean something.
        share: of them that a trial has to be better than; 0.5: the median.
    """

    latency: tuple[str, str]
    peers: int = 4
    share: float = 0.5

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial falls behind."""
        own = curve(trial)
        values = [one[len(own) - 1] for one in _no_slower(study, trial, self.latency) if len(one) >= len(own)]
        return bool(own) and len(values) >= self.peers and own[-1] < float(np.quantile(values, self.share))


def curve(trial: FrozenTrial) -> list[float]:
    """A trial's values on the rungs so far."""
    if RUNGS in trial.user_attrs:
        return [rung["value"] for rung in trial.user_attrs[RUNGS]]
    return [trial.intermediate_values[rung] for rung in sorted(trial.intermediate_values)]


def _no_slower(study: optuna.Study, trial: FrozenTrial, latency: tuple[str, str]) -> list[list[float]]:
    """Curves of the other trials whose latency is known and not above the trial's."""
    own_ms = _latency_ms(trial, latency)
    if own_ms is None:
        return []
    curves = []
    for other in study.get_trials(deepcopy=False):
        ms = _latency_ms(other, latency)
        if other.number != trial.number and ms is not None and ms <= own_ms:
            curves.append(curve(other))
    return curves


def _latency_ms(trial: FrozenTrial, latency: tuple[str, str]) -> float | None:
    mapping, key = latency
    ms: float | None = trial.user_attrs.get(mapping, {}).get(key)
    return ms

"""When a candidate stops climbing the rungs: judged against the candidates that are no slower.

A latency is known before training, so a rung can be judged fairly: a fast network that is less accurate than slower ones is
worth finishing, one that is less accurate than networks as fast as itself is not. That keeps the whole front alive, although
the study has one objective.
"""

import statistics
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class NoSlowerPruner(optuna.pruners.BasePruner):
    """Stops a trial whose last value is below the median of what no slower trials had on the same rung.

    Attributes:
        latency: user attribute that holds a trial's predicted milliseconds, as (name of a mapping, key in it).
        peers: no slower trials that must have been there, for the median to mean something.
    """

    latency: tuple[str, str]
    peers: int = 4

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial falls behind."""
        rung = trial.last_step
        own_ms = self._latency_ms(trial)
        if rung is None or own_ms is None:
            return False
        values = []
        for other in study.get_trials(deepcopy=False):
            ms = self._latency_ms(other)
            if other.number != trial.number and ms is not None and ms <= own_ms and rung in other.intermediate_values:
                values.append(other.intermediate_values[rung])
        return len(values) >= self.peers and trial.intermediate_values[rung] < statistics.median(values)

    def _latency_ms(self, trial: FrozenTrial) -> float | None:
        mapping, key = self.latency
        ms: float | None = trial.user_attrs.get(mapping, {}).get(key)
        return ms

"""When a candidate stops climbing the rungs: judged against the candidates that are no dearer.

A network's costs (its predicted milliseconds, or whatever else the front is against) are known before training, so a rung can be
judged fairly: a cheap network that is less accurate than dearer ones is worth finishing, one that is less accurate than networks
that are no dearer in any cost is not. That keeps the whole front alive, whether the study has one objective or more (where Optuna
itself refuses to report and to prune).

Two rules stop a candidate. It is behind most of those that are no dearer, on the rung it is on; or, later in a search, where most
candidates are as good as those before, it cannot be hoped any more to reach the front: what candidates with its score came to on
the last rung, with luck, is still less than what one that is no dearer has reached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from nas.costs import is_no_dearer
from nas.sampling.history import RUNGS, outlook, told_costs


class Climber(NamedTuple):
    """A trial of known costs.

    Attributes:
        costs: what its values are weighed against, by name.
        curve: its values on the rungs so far.
        complete: whether it went to the last rung.
    """

    costs: Mapping[str, float]
    curve: list[float]
    complete: bool


@dataclass(frozen=True)
class NoDearerPruner(optuna.pruners.BasePruner):
    """Stops a trial that is behind trials, finished or running, that are no dearer.

    Attributes:
        latency: user attribute that holds a trial's predicted milliseconds, as (name of a mapping, key in it); where the
            mapping has `costs`, those count in their place.
        peers: no dearer trials that must have been on a rung, for the quantile to mean something.
        share: of them that a trial has to be better than; 0.5: the median.
        complete: trials that must have gone to the last rung before that is extrapolated to.
        luck: how far above what is expected of it on the last rung a trial is hoped to end, in standard deviations.
    """

    latency: tuple[str, str]
    peers: int = 4
    share: float = 0.6
    complete: int = 10
    luck: float = 1.75

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial falls behind."""
        return self.falls_behind(trial.number, [*study.get_trials(deepcopy=False), trial])

    def falls_behind(self, number: int, trials: Sequence[FrozenTrial]) -> bool:
        """Whether the trial of that number falls behind the others of the study; of several of that number the last counts."""
        climbers = {trial.number: self._climber(trial) for trial in trials}
        own = climbers.pop(number)
        if own is None or not own.curve:
            return False
        others = [one for one in climbers.values() if one is not None]
        return self._is_behind(own, others) or self._is_hopeless(own, others)

    def _is_behind(self, own: Climber, others: Sequence[Climber]) -> bool:
        rung = len(own.curve) - 1
        values = [one.curve[rung] for one in others if is_no_dearer(one.costs, own.costs) and len(one.curve) > rung]
        return len(values) >= self.peers and own.curve[rung] < float(np.quantile(values, self.share))

    def _is_hopeless(self, own: Climber, others: Sequence[Climber]) -> bool:
        rung = len(own.curve) - 1
        ended = [one for one in others if one.complete and len(one.curve) > rung]
        reached = [one.curve[-1] for one in ended if is_no_dearer(one.costs, own.costs)]
        if len(ended) < self.complete or not reached:
            return False
        ahead = outlook([one.curve[rung] for one in ended], [one.curve[-1] for one in ended])
        return ahead is not None and ahead.final(own.curve[-1]) + self.luck * ahead.spread < max(reached)

    def _climber(self, trial: FrozenTrial) -> Climber | None:
        mapping, key = self.latency
        costs = told_costs(trial.user_attrs.get(mapping, {}), latency=key)
        return None if costs is None else Climber(costs, curve(trial), trial.state == TrialState.COMPLETE)


def curve(trial: FrozenTrial) -> list[float]:
    """A trial's values on the rungs so far."""
    if RUNGS in trial.user_attrs:
        return [rung["value"] for rung in trial.user_attrs[RUNGS]]
    return [trial.intermediate_values[rung] for rung in sorted(trial.intermediate_values)]

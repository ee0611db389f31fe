"""The Optuna sampler of a study: decides a whole candidate when a trial begins, and draws again if it would be wasted.

Optuna asks for one decision after the other and knows neither limits nor duplicates. Here all of a trial's decisions are drawn
before the first is asked for, by Optuna's own samplers or by ours; what is beyond a limit or was seen before is drawn anew, up
to `REDRAWS` times, without a trial being spent on it. Everything is read from the study's storage, so any number of workers may
share a study, and a resumed one goes on.
"""

import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from nas.costs import MS
from nas.limits import Reward
from nas.sampling.auto import AutoSampler
from nas.sampling.decisions import Decisions, Drawn
from nas.sampling.history import CANDIDATE, Seen, history
from nas.survey import Answers
from searchspace.architecture import Architecture

SamplerName = Literal["auto", "tpe", "nsga2", "gp", "random"]
SAMPLERS: tuple[SamplerName, ...] = get_args(SamplerName)
REDRAWS = 64
PINNINGS = 6  # in which decisions are settled for a candidate, at most
FRESH: dict[SamplerName, int] = {"tpe": 8, "nsga2": 16, "gp": 1}
"""Draws of a sampler whose draws take long, before its last one is changed instead."""
MOST_CHANGES = 6
FLAT = ("nsga2", "gp")  # learn only from decisions that every trial has, so every trial gets an answer to all of them


class Judgement(Protocol):
    """What is known of a candidate before it is trained."""

    @property
    def ms(self) -> float: ...
    @property
    def excess(self) -> float: ...
    @property
    def costs(self) -> Mapping[str, float]: ...


Judge = Callable[[Architecture], Judgement]
Pins = Callable[[Sequence[Seen], random.Random], Answers]
"""Decisions that are settled for the next candidate, given what is known."""


@dataclass
class _Draw:
    """What was decided for a trial."""

    answers: Answers
    redraws: int


@dataclass
class _Gate:
    """Lets through what may be tried, and counts what may not."""

    judge: Judge
    met: set[str]
    refused: int = 0

    def within(self, drawn: Drawn) -> Judgement | None:
        judged = self.judge(drawn.architecture)
        if judged.excess > 0:
            self.refused += 1
            return None
        return judged

    def is_new(self, drawn: Drawn) -> bool:
        if drawn.architecture.fingerprint in self.met:
            self.refused += 1
            return False
        return True

    def is_usable(self, drawn: Drawn) -> bool:
        """The same as both, without counting."""
        return drawn.architecture.fingerprint not in self.met and self.judge(drawn.architecture).excess <= 0


class CandidateSampler(BaseSampler):
    """Draws candidates that are within every limit and new to the study.

    Args:
        name: which sampler draws: `auto` (ours), or Optuna's `tpe`, `nsga2`, `gp`, `random`.
        decisions: of the space.
        judge: what is known of a candidate before it is trained; `excess` above 0 is beyond a limit.
        rungs: of brief training.
        limit_ms: what a network may take.
        pareto: whether the study's objectives are accuracy and the costs.
        reward: what counts where there is one objective; None: accuracy.
        against: names of the costs.
        limits: what a network may cost at most, by name, where there is a limit beside that on milliseconds.
        pins: decisions that are settled; None: none.
        startup: random candidates before Optuna's samplers learn.
        seed: of all draws; another one for each worker.
    """

    def __init__(
        self,
        name: SamplerName,
        decisions: Decisions,
        *,
        judge: Judge,
        rungs: int,
        limit_ms: float,
        pareto: bool = False,
        reward: Reward | None = None,
        against: tuple[str, ...] = (MS,),
        limits: Mapping[str, float] | None = None,
        pins: Pins | None = None,
        startup: int = 10,
        seed: int = 0,
    ) -> None:
        self._name, self._decisions, self._judge, self._pins = name, decisions, judge, pins
        self._source = random.Random(seed)
        self._optuna = _optuna_sampler(name, seed=seed % 2**32, startup=startup)  # all that numpy takes
        self._auto = AutoSampler(
            decisions,
            rungs=rungs,
            limit_ms=limit_ms,
            pareto=pareto,
            reward=reward or Reward(),
            against=against,
            limits=limits or {},
        )
        self._draws: dict[int, _Draw] = {}

    @property
    def distributions(self) -> dict[str, BaseDistribution] | None:
        """Decisions that every trial has to answer beside its own; None where there are none."""
        if self._name not in FLAT:
            return None
        return {name: _distribution(offer) for name, offer in self._decisions.offers.items()}

    def redraws(self, number: int) -> int:
        """How many candidates were drawn in vain for the trial of that number."""
        return self._draws[number].redraws if number in self._draws else 0

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Decide everything about the candidate (if it was not queued with its decisions)."""
        self._optuna.before_trial(study, trial)
        if "fixed_params" in trial.system_attrs:
            return
        self._draws = {number: draw for number, draw in self._draws.items() if number > trial.number - 1000}
        seen = history(study._get_trials(deepcopy=False, use_cache=True))  # as read when the trial began
        gate = _Gate(self._judge, {one.fingerprint for one in seen})
        seen = [one for one in seen if one.answers]  # others are candidates like any, but teach nothing about decisions
        for settled in self._settled(seen):
            decisions = Decisions(self._decisions.space, self._decisions.offers, settled)
            if self._name == "auto":
                drawn = self._auto.propose(seen, gate, self._source, decisions)
            else:
                drawn = self._redrawn(study, trial, decisions, gate)
            if gate.is_usable(drawn):
                break
        self._draws[trial.number] = _Draw(drawn.answers, gate.refused)

    def _settled(self, seen: Sequence[Seen]) -> Iterator[Answers]:
        """What to settle; where that leaves nothing new, what else might have been, at last nothing."""
        tried: list[Answers] = []
        for _ in range(PINNINGS if self._pins else 0):
            pins = self._pins(seen, self._source) if self._pins else {}
            if pins not in tried:
                tried.append(pins)
                yield pins
        if {} not in tried:
            yield {}

    def _redrawn(self, study: optuna.Study, trial: FrozenTrial, decisions: Decisions, gate: "_Gate") -> Drawn:
        """The first draw of Optuna's sampler that is allowed; where that takes too long, a small change of the last draw."""
        fresh = FRESH.get(self._name, REDRAWS)
        for _ in range(fresh):
            dry = _DryTrial(self._optuna, study, trial)
            pinned = _Pinned(dry, decisions.pins)
            architecture = decisions.space.sample(pinned)
            if self._name in FLAT:
                for name, offer in decisions.offers.items():
                    if name not in pinned.answers:
                        pinned.answers[name] = dry.suggest(name, _distribution(offer))
            drawn = Drawn(architecture, pinned.answers)
            if gate.within(drawn) is not None and gate.is_new(drawn):
                return drawn
        for attempt in range(fresh, REDRAWS):
            near = decisions.mutated(drawn.answers, self._source, changes=1 + attempt // fresh % MOST_CHANGES)
            if gate.within(near) is not None and gate.is_new(near):
                return Drawn(near.architecture, {**drawn.answers, **near.answers})
        return drawn

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None: everything was decided before."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: everything was decided before."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The decision as it was made; drawn at random where a queued trial lacks it."""
        draw = self._draws.get(trial.number)
        if draw is not None and param_name in draw.answers:
            return draw.answers[param_name]
        if isinstance(param_distribution, CategoricalDistribution):
            return self._source.choice(param_distribution.choices)
        assert isinstance(param_distribution, IntDistribution)
        return self._source.randint(param_distribution.low, param_distribution.high)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Whatever Optuna's sampler does then."""
        self._optuna.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Another source of chance, as a new process needs."""
        self._source.seed()
        self._optuna.reseed_rng()


class _DryTrial:
    """Answers decisions as a sampler would, without a trial being told."""

    def __init__(self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler, self._study, self._trial = sampler, study, trial
        self._space = sampler.infer_relative_search_space(study, trial)
        self._relative = sampler.sample_relative(study, trial, self._space)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return int(self.suggest(name, IntDistribution(low, high)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.suggest(name, CategoricalDistribution(tuple(choices)))

    def suggest(self, name: str, distribution: BaseDistribution) -> Any:
        """The sampler's answer."""
        if name in self._relative and self._space.get(name) == distribution:
            return self._relative[name]
        return self._sampler.sample_independent(self._study, self._trial, name, distribution)


class _Pinned:
    """Answers settled decisions itself, and asks for the others; keeps all answers."""

    def __init__(self, dry: _DryTrial, pins: Answers) -> None:
        self._dry, self._pins = dry, pins
        self.answers: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int) -> int:
        settled = self._pins.get(name)
        known = isinstance(settled, int) and low <= settled <= high
        answer = int(settled) if known and settled is not None else self._dry.suggest_int(name, low, high)
        self.answers[name] = answer
        return answer

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        known = name in self._pins and self._pins[name] in choices
        answer = self._pins[name] if known else self._dry.suggest_categorical(name, choices)
        self.answers[name] = answer
        return answer


def _optuna_sampler(name: SamplerName, *, seed: int, startup: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True)
            case "nsga2":
                return NSGAIISampler(seed=seed, population_size=max(2 * startup, 20))
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=startup)
        return RandomSampler(seed=seed)


def _distribution(offer: Sequence[Any]) -> BaseDistribution:
    if isinstance(offer, range):
        return IntDistribution(offer.start, offer.stop - 1)
    return CategoricalDistribution(tuple(offer))


__all__ = ["CANDIDATE", "SAMPLERS", "CandidateSampler", "SamplerName"]

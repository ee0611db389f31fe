"""The search itself: an Optuna study that looks for the most accurate network within a latency budget.

Latency is known before training, so the constraint is applied first: a candidate over budget by more than the latency model's
own error is told to Optuna as a violated constraint and never trained. One that was seen before is told its old value. What is
left climbs the rungs of brief training, until it falls behind those that are no slower.

Everything is in Optuna's storage and in the candidates' checkpoints. A study that was killed is opened again, the trial in
flight is queued once more, and the search goes on.

Several processes may work on one study (`nas.claims`): no network is trained twice, and no more of them than asked for.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.claims import FAILED, beating, claimed_before, in_flight, reclaim, requeue, take
from nas.costs import MS, costs_of, most_of
from nas.errors import Diverged, StudyError
from nas.limits import BUDGET, Limit, Reward, option_of
from nas.outcomes import (
    ADOPTED,
    COMPLETE,
    DUPLICATE,
    ERROR,
    INFEASIBLE,
    INTERRUPTED,
    PRUNED,
    REDRAWS,
    Progress,
    progress_of,
)
from nas.pruning import NoDearerPruner
from nas.sampling.candidate_sampler import CandidateSampler, Pins, SamplerName
from nas.sampling.decisions import Decisions
from nas.sampling.history import CANDIDATE, COSTS, GIVEN, OUTCOME, RUNGS
from nas.storage import failures_told, first_line, is_of_storage
from nas.survey import Answers
from searchspace.architecture import Architecture
from searchspace.space import Space

STARTUP_TRIALS = 10  # before the sampler learns; they are spread over the feasible latencies
WASTE_LIMIT = 20  # candidates that need no training, per one that does, before the search gives up
LOOK_EVERY_S, LOOK_AT_LAST_EVERY_S = 0.2, 2.0  # while others train what is still wanted
CONSTRAINT = "constraints:"
"""Begins the name of the attribute that holds a constraint, as `optuna.Trial.set_constraint` of Optuna 5, which reads first."""


class Prediction(Protocol):
    """Milliseconds of a network on the device: expected, and the interval that is likely to hold them."""

    @property
    def ms(self) -> float: ...
    @property
    def low_ms(self) -> float: ...
    @property
    def high_ms(self) -> float: ...


@dataclass(frozen=True)
class RungScore:
    """How a candidate did on one rung.

    Attributes:
        accuracy: on the validation split, in [0, 1]; None where nothing was trained.
        loss: mean cross-entropy there, nats; None where nothing was trained.
        seconds: of training (or of computing a score without it).
        training_loss: mean over the rung's steps, nats.
        value: what candidates are compared by, more is better; None: the accuracy.
    """

    accuracy: float | None
    loss: float | None
    seconds: float
    training_loss: float | None = None
    value: float | None = None

    @property
    def score(self) -> float:
        """What candidates are compared by; more is better."""
        value = self.accuracy if self.value is None else self.value
        assert value is not None
        return value


@dataclass(frozen=True)
class Problem:
    """What a study looks for.

    Attributes:
        space: where candidates come from, adapted to the data.
        predict: latency of an architecture on the target.
        budget_ms: milliseconds a network may take.
        train: trains a candidate on the rung of that number, going on from the rung before; may raise `Diverged`.
        rungs: how many rungs there are.
        limits: what a network must stay within beside the budget.
        pareto: whether the whole front counts: the study's objectives are accuracy and every cost then.
        reward: what is maximised where there is one objective; None: the score on the last rung.
        against: names of the front's costs (`nas.costs`).
    """

    space: Space
    predict: Callable[[Architecture], Prediction]
    budget_ms: float
    train: Callable[[Architecture, int], RungScore]
    rungs: int
    limits: tuple[Limit, ...] = ()
    pareto: bool = False
    reward: Reward | None = None
    against: tuple[str, ...] = (MS,)

    @property
    def pruner(self) -> NoDearerPruner:
        """When a candidate stops climbing."""
        return NoDearerPruner((CANDIDATE, "predicted_ms"))

    def judge(self, architecture: Architecture) -> "Judgement":
        """What is known of a network before it is trained."""
        prediction = self.predict(architecture)
        excess = {BUDGET: prediction.low_ms - self.budget_ms}
        excess |= {limit.name: limit.excess(architecture) for limit in self.limits}
        costs = costs_of(architecture, prediction.ms, against=self.against, limits=self.limits)
        return Judgement(prediction, excess, costs)

    def values(self, score: float, ms: float, costs: Mapping[str, float] | None = None) -> list[float]:
        """What Optuna is told of a network that was trained to the last rung; `costs` None: its milliseconds alone."""
        if self.pareto:
            return [score, *({MS: ms} if costs is None else costs).values()]
        return [score if self.reward is None else self.reward.of(score, ms)]


@dataclass(frozen=True)
class Judgement:
    """What is known of a network before it is trained.

    Attributes:
        prediction: of its latency.
        violations: by how much it is beyond each limit, by name; 0 or less: it is within.
        costs: what its accuracy is weighed against on a front, by name.
    """

    prediction: Prediction
    violations: Mapping[str, float]
    costs: Mapping[str, float]

    @property
    def ms(self) -> float:
        """Predicted milliseconds."""
        return self.prediction.ms

    @property
    def excess(self) -> float:
        """The largest violation."""
        return max(self.violations.values())

    def candidate(self, architecture: Architecture) -> dict[str, object]:
        """What a trial that trains the network says of it."""
        return {
            "fingerprint": architecture.fingerprint,
            "predicted_ms": self.prediction.ms,
            "low_ms": self.prediction.low_ms,
            "high_ms": self.prediction.high_ms,
            COSTS: dict(self.costs),
            "architecture": architecture.to_dict(),
        }


def attach_sampler(
    study: optuna.Study, problem: Problem, name: SamplerName = "auto", *, seed: int, pins: Pins | None = None
) -> CandidateSampler:
    """Give a study its sampler.

    Args:
        study: the study.
        problem: what it looks for.
        name: of the sampler.
        seed: of the sampler; trials that exist already shift it, so that a resumed study does not draw the same again.
        pins: decisions that are settled, given what is known; None: none.
    """
    sampler = CandidateSampler(
        name,
        Decisions.of(problem.space),
        judge=problem.judge,
        rungs=problem.rungs,
        limit_ms=problem.budget_ms,
        pareto=problem.pareto,
        reward=problem.reward,
        against=problem.against,
        limits=most_of(budget_ms=problem.budget_ms, limits=problem.limits),
        pins=pins,
        startup=STARTUP_TRIALS,
        seed=seed + len(study.get_trials(deepcopy=False)),
    )
    study.sampler = sampler
    return sampler


@failures_told()
def prepare(
    study: optuna.Study,
    first: Sequence[Answers],
    *,
    given: Sequence[Answers] = (),
    outside: Sequence[Architecture] = (),
    local: bool,
) -> None:
    """Queue what must be tried first: trials that a killed process left behind, and the first candidates.

    Args:
        study: the study.
        first: the decisions of each candidate that a new study begins with.
        given: those of candidates that are tried before, also in a study that has trials, unless it knows them.
        outside: networks that are not of the space, tried after these as they are.
        local: nobody else works on the study, so every unfinished trial is a killed one.
    """
    trials = study.get_trials(deepcopy=False)
    if local:
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                requeue(study, trial._trial_id, died=True)
    known = [trial.system_attrs.get("fixed_params", {}) | trial.params for trial in trials]
    for answers in given:
        if not any(answers.items() <= decisions.items() for decisions in known):
            study.enqueue_trial(dict(answers))
    met = [trial.user_attrs.get(GIVEN) for trial in trials]
    for architecture in outside:
        if architecture.to_dict() not in met:
            study.enqueue_trial({}, user_attrs={GIVEN: architecture.to_dict()})
    if all(ADOPTED in trial.user_attrs for trial in trials):
        for answers in first:
            study.enqueue_trial(dict(answers))


@failures_told()
def run_trials(
    study: optuna.Study,
    problem: Problem,
    *,
    trials: int,
    here: int | None = None,
    more: Callable[[], int] | None = None,
    note: Callable[[str], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> int:
    """Try candidates until `trials` of them were trained (to the end, or until pruned or failed).

    Training that raises an error costs the candidate one of a few attempts, here or elsewhere; where that of another candidate
    raised one just before, it is not the candidates that are at fault, and the error is raised.

    Args:
        study: with a sampler.
        problem: what it looks for.
        trials: candidates to train, by all processes together.
        here: candidates that this process trains at most; None: no limit.
        more: asked where nothing is left to begin: how many candidates are wanted now; None: still `trials`.
        note: told of training that raised an error.
        on_progress: told where the study stands.

    Returns:
        How many candidates this process trained.

    Raises:
        StudyError: almost everything drawn is over budget or known already, or the storage is gone.
    """
    wasted, trained_here, pause = 0, 0, LOOK_EVERY_S
    failed_before: str | None = None

    def extended() -> bool:
        nonlocal trials
        before, trials = trials, max(trials, 0 if more is None else more())
        return trials > before

    while True:
        known = study.get_trials(deepcopy=False)
        state = progress_of(known, trials)
        if on_progress is not None:
            on_progress(state)
        if (here is not None and trained_here >= here) or (state.trained >= trials and not extended()):
            return trained_here
        if reclaim(study, known):
            continue
        if state.trained + len(in_flight(study, known)) >= trials and not extended():
            time.sleep(pause)  # others train what is wanted; of one that dies the candidate is queued again
            pause = min(2 * pause, LOOK_AT_LAST_EVERY_S)
            continue
        pause = LOOK_EVERY_S
        try:
            outcome = _ask_and_try(study, problem, trials, known)
        except _TrainingFailed as failure:
            if failed_before not in (None, failure.fingerprint):
                raise failure.error from None
            if note is not None:
                note(f"candidate {failure.fingerprint}: training it raised {failure}; it is queued once more")
            failed_before, outcome = failure.fingerprint, INTERRUPTED
        if outcome in (COMPLETE, PRUNED):
            failed_before = None
        trained_here += outcome in (COMPLETE, PRUNED, FAILED)
        wasted = 0 if outcome in (COMPLETE, PRUNED, FAILED, INTERRUPTED) else wasted + 1
        if wasted > WASTE_LIMIT * max(trials, 10):
            raise StudyError(_used_up(known, wasted))


def _used_up(trials: Sequence[FrozenTrial], wasted: int) -> str:
    """Why candidates in a row needed no training, and what to do."""
    limits = Counter(
        option_of(name) for trial in trials[-wasted:] for name, excess in trial.constraints.items() if excess > 0
    )
    if not limits:
        return f"{wasted} candidates in a row were known already; the space is used up: give fewer --trials, or widen the space"
    told = ", ".join(f"{option} ({count} of them)" for option, count in limits.most_common())
    return (
        f"{wasted} candidates in a row were beyond {told} or known already; the space is used up there: "
        f"raise {limits.most_common(1)[0][0]}, or widen the space"
    )


class _TrainingFailed(Exception):
    """Training a candidate raised an error that says nothing about the search."""

    def __init__(self, fingerprint: str, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {first_line(error)}")
        self.fingerprint, self.error = fingerprint, error


def _ask_and_try(study: optuna.Study, problem: Problem, trials: int, known: Sequence[FrozenTrial]) -> str:
    """One trial; if it is interrupted it is queued once more, for this process's successor or for others."""
    trial_id = take(study, known)
    try:
        with beating(study, trial_id):
            return _try(study, _drawn(study, trial_id, known), problem, trials, known)
    except optuna.exceptions.UpdateFinishedTrialError:
        return INTERRUPTED  # we were silent for so long that another process took it over
    except BaseException as error:  # interrupted, or a disk is full
        if not is_of_storage(error):  # else it is found by its heartbeat or its process
            requeue(study, trial_id)
        raise


def _drawn(study: optuna.Study, trial_id: int, known: Sequence[FrozenTrial]) -> Trial:
    """The trial with its decisions, as `optuna.Study.ask` of Optuna 5 makes one; the sampler learns from what was read before."""
    study._thread_local.cached_all_trials = list(known)
    trial, sampler = Trial(study, trial_id), study.sampler
    if isinstance(sampler, CandidateSampler):
        for name, distribution in (sampler.distributions or {}).items():
            trial._suggest(name, distribution)
        if redraws := sampler.redraws(trial.number):
            trial.set_user_attr(REDRAWS, redraws)
    return trial


def _try(study: optuna.Study, trial: Trial, problem: Problem, trials: int, known: Sequence[FrozenTrial]) -> str:
    """Judge one candidate and tell the study; returns how it ended."""
    given = trial.user_attrs.get(GIVEN)
    architecture = problem.space.sample(trial) if given is None else Architecture.from_dict(given)
    judged = problem.judge(architecture)
    for name, violation in judged.violations.items():
        study._storage.set_trial_system_attr(trial._trial_id, f"{CONSTRAINT}{name}", float(violation))
    if judged.excess > 0:
        return _end(study, trial, INFEASIBLE, TrialState.PRUNED)
    earlier = _known(known, architecture.fingerprint)
    if earlier is not None:
        for step, value in earlier.intermediate_values.items():
            trial.report(value, step)
        return _end(study, trial, DUPLICATE, earlier.state, values=earlier.values)
    trial.set_user_attr(CANDIDATE, judged.candidate(architecture))
    others, now = claimed_before(study, trial.number, claim=CANDIDATE)
    taken = [other.user_attrs[CANDIDATE]["fingerprint"] for other in others]
    if architecture.fingerprint in taken or _known(now, architecture.fingerprint):
        return _end(study, trial, DUPLICATE, TrialState.FAIL)
    if progress_of(now, trials).trained + len(others) >= trials:
        requeue(study, trial._trial_id)
        return INTERRUPTED
    return _climb(study, trial, problem, architecture, judged)


def _known(trials: Sequence[FrozenTrial], fingerprint: str) -> FrozenTrial | None:
    """The one of the trials that trained the same network before."""
    for trial in trials:
        outcome = trial.user_attrs.get(OUTCOME)
        if (
            trial.state == TrialState.FAIL
        ):  # of one that was killed when it had said how it ends, the score is not known
            ended = outcome == FAILED
        else:
            ended = trial.state.is_finished() and outcome in (COMPLETE, PRUNED)
        if ended and trial.user_attrs[CANDIDATE]["fingerprint"] == fingerprint:
            return trial
    return None


def _climb(study: optuna.Study, trial: Trial, problem: Problem, architecture: Architecture, judged: Judgement) -> str:
    """Train rung after rung, until the last or until the pruner stops it."""
    scores: list[dict[str, float | None]] = []
    for rung in range(problem.rungs):
        try:
            score = problem.train(architecture, rung)
        except Diverged:
            return _end(study, trial, FAILED, TrialState.FAIL)
        except Exception as error:
            if _is_of_place(error):
                raise
            failure = _TrainingFailed(architecture.fingerprint, error)
            trial.set_user_attr(ERROR, str(failure))
            requeue(study, trial._trial_id, died=True)
            raise failure from error
        scores.append({**asdict(score), "value": score.score})
        trial.set_user_attr(RUNGS, scores)
        if not problem.pareto:  # Optuna takes no reports where there are several objectives
            trial.report(score.score, rung)
        if rung + 1 < problem.rungs and problem.pruner.falls_behind(trial.number, study.get_trials(deepcopy=False)):
            return _end(study, trial, PRUNED, TrialState.PRUNED)
    values = problem.values(score.score, judged.ms, judged.costs)
    return _end(study, trial, COMPLETE, TrialState.COMPLETE, values=values)


def _is_of_place(error: BaseException | None) -> bool:
    """Whether an error of training is one of a disk or of the place for checkpoints, which no candidate can help."""
    while error is not None:
        if isinstance(error, StudyError) or (isinstance(error, OSError) and not isinstance(error, FileNotFoundError)):
            return True
        error = error.__cause__
    return False


def _end(
    study: optuna.Study, trial: Trial, outcome: str, state: TrialState, *, values: Sequence[float] | None = None
) -> str:
    trial.set_user_attr(OUTCOME, outcome)
    study.tell(trial, values if state == TrialState.COMPLETE else None, state=state, skip_if_finished=True)
    return outcome

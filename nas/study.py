"""The search itself: an Optuna study that looks for the most accurate network within a latency budget.

Latency is known before training, so the constraint is applied first: a candidate over budget by more than the latency model's
own error is told to Optuna as a violated constraint and never trained. One that was seen before is told its old value. What is
left climbs the rungs of brief training, until it falls behind those that are no slower.

Everything is in Optuna's storage and in the candidates' checkpoints. A study that was killed is opened again, the trial in
flight is queued once more, and the search goes on.

Several processes may work on one study (`nas.claims`): no network is trained twice, and no more of them than asked for.
"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import optuna
import sqlalchemy.event
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.claims import claimed_before, in_flight, requeue, sign
from nas.errors import Diverged, StudyError
from nas.pruning import NoSlowerPruner
from nas.survey import Survey
from searchspace.architecture import Architecture
from searchspace.space import Space

FORMAT = 1
STARTUP_TRIALS = 10  # before the sampler learns; they are spread over the feasible latencies
WASTE_LIMIT = 20  # candidates that need no training, per one that does, before the search gives up
LOOK_EVERY_S = 0.2  # while others train what is still wanted
SQLITE_PATIENCE_S = 60.0
OUTCOME, CANDIDATE, RUNGS = "outcome", "candidate", "rungs"
COMPLETE, PRUNED, INFEASIBLE, DUPLICATE, FAILED, INTERRUPTED = (
    "complete",
    "pruned",
    "infeasible",
    "duplicate",
    "failed",
    "interrupted",
)


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
    """

    space: Space
    predict: Callable[[Architecture], Prediction]
    budget_ms: float
    train: Callable[[Architecture, int], RungScore]
    rungs: int


@dataclass(frozen=True)
class Tried:
    """A trial that was trained to the last rung."""

    architecture: Architecture
    accuracy: float
    loss: float
    predicted_ms: float
    low_ms: float
    high_ms: float

    @property
    def latency_ms(self) -> float:
        """Predicted milliseconds."""
        return self.predicted_ms


@dataclass(frozen=True)
class Progress:
    """Where a search stands: `trained` of `wanted` candidates, the best accuracy so far, how trials ended."""

    trained: int
    wanted: int
    best: float | None
    outcomes: Mapping[str, int]


def open_study(url: str, name: str, *, seed: int, identity: Mapping[str, Any]) -> optuna.Study:
    """The study `name` in an Optuna storage, made if it is not there.

    Args:
        url: such as ``sqlite:///study.db`` or ``postgresql://…``.
        name: the study's.
        seed: of the sampler; trials that exist already shift it, so that a resumed study does not draw the same again.
        identity: fingerprints of what is searched; a study of anything else is refused.

    Raises:
        StudyError: the storage cannot be used, or the study is of something else.
    """
    identity = {"format": FORMAT, **identity}
    try:
        study = optuna.create_study(
            storage=open_storage(url),
            study_name=name,
            direction="maximize",
            load_if_exists=True,
            pruner=NoSlowerPruner(latency=(CANDIDATE, "predicted_ms")),
        )
    except optuna.exceptions.StorageInternalError as error:
        raise StudyError(f"the study's storage cannot be used ({_first_line(error)}); check --storage") from error
    known = study.user_attrs.get("identity")
    if known is None:
        study.set_user_attr("identity", identity)
    elif known != identity:
        differing = sorted(key for key in known.keys() | identity.keys() if known.get(key) != identity.get(key))
        raise StudyError(
            f"study {name!r} was made for another {', '.join(differing)}; give the same again, or choose another --out or --study"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = TPESampler(
            seed=seed + len(study.get_trials(deepcopy=False)),
            n_startup_trials=STARTUP_TRIALS,
            multivariate=True,
            group=True,  # decisions that exist only in some architectures
        )
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
        return optuna.storages.get_storage(url)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("sqlalchemy", "optuna", "builtins"):
            raise
        raise StudyError(f"the study's storage cannot be used ({_first_line(error)}); check --storage") from error


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


def prepare(study: optuna.Study, survey: Survey, *, budget_ms: float, local: bool) -> None:
    """Queue what must be tried first: trials that a killed process left behind, or in a new study the startup candidates.

    Args:
        study: the study.
        survey: where startup candidates are taken from.
        budget_ms: they stay within it.
        local: nobody else works on the study, so every unfinished trial is a killed one.
    """
    if local:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            requeue(study, trial.number, trial.params)
    if not study.get_trials(deepcopy=False):
        for answers in survey.spread(budget_ms, STARTUP_TRIALS):
            study.enqueue_trial(dict(answers))


def run_trials(
    study: optuna.Study, problem: Problem, *, trials: int, on_progress: Callable[[Progress], None] | None = None
) -> None:
    """Try candidates until `trials` of them were trained (to the end, or until pruned or failed).

    Raises:
        StudyError: almost everything drawn is over budget or known already.
    """
    wasted = 0
    while (before := progress(study, trials)).trained < trials:
        if on_progress is not None:
            on_progress(before)
        if before.trained + len(in_flight(study)) >= trials:
            time.sleep(
                LOOK_EVERY_S
            )  # others train what is wanted; should one of them die, its candidate is queued again
            continue
        try:
            outcome = _ask_and_try(study, problem, trials)
        except optuna.exceptions.StorageInternalError as error:
            reason = _first_line(error.__cause__ or error)
            raise StudyError(
                f"the study's storage failed ({reason}); finished trials are kept, run the same again"
            ) from error
        wasted = 0 if outcome in (COMPLETE, PRUNED, FAILED, INTERRUPTED) else wasted + 1
        if wasted > WASTE_LIMIT * max(trials, 10):
            raise StudyError(
                f"{wasted} candidates in a row were over the budget of {problem.budget_ms:.3g} ms or known already; "
                "the space is used up there: raise --budget-ms, or widen the space"
            )
    if on_progress is not None:
        on_progress(progress(study, trials))


def progress(study: optuna.Study, wanted: int) -> Progress:
    """Where the study stands."""
    outcomes = count_outcomes(study)
    best = max((trial.accuracy for trial in completed(study)), default=None)
    return Progress(outcomes[COMPLETE] + outcomes[PRUNED] + outcomes[FAILED], wanted, best, outcomes)


def count_outcomes(study: optuna.Study) -> Counter[str]:
    """How many trials ended in each way; one that was killed in the middle counts as interrupted."""
    outcomes: Counter[str] = Counter()
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            outcomes[trial.user_attrs[OUTCOME]] += 1
        elif trial.state == TrialState.FAIL:
            outcome = trial.user_attrs.get(OUTCOME)
            outcomes[outcome if outcome in (FAILED, DUPLICATE) else INTERRUPTED] += 1
    return outcomes


def completed(study: optuna.Study) -> list[Tried]:
    """The candidates that reached the last rung."""
    result = []
    for trial in judged(study):
        if trial.user_attrs[OUTCOME] == COMPLETE:
            candidate = trial.user_attrs[CANDIDATE]
            result.append(
                Tried(
                    Architecture.from_dict(candidate["architecture"]),
                    trial.user_attrs[RUNGS][-1]["accuracy"],
                    trial.user_attrs[RUNGS][-1]["loss"],
                    candidate["predicted_ms"],
                    candidate["low_ms"],
                    candidate["high_ms"],
                )
            )
    return result


def _ask_and_try(study: optuna.Study, problem: Problem, trials: int) -> str:
    """One trial; if it is interrupted it is queued once more, for this process's successor or for others."""
    trial = study.ask()
    try:
        sign(trial)
        return _try(study, trial, problem, trials)
    except KeyboardInterrupt:
        requeue(study, trial.number, trial.params)
        raise


def _try(study: optuna.Study, trial: Trial, problem: Problem, trials: int) -> str:
    """Judge one candidate and tell the study; returns how it ended."""
    architecture = problem.space.sample(trial)
    prediction = problem.predict(architecture)
    excess_ms = prediction.low_ms - problem.budget_ms
    trial.set_constraint("latency", excess_ms)
    if excess_ms > 0:
        return _end(study, trial, INFEASIBLE, TrialState.PRUNED)
    earlier = _known(study, architecture.fingerprint)
    if earlier is not None:
        for step, value in earlier.intermediate_values.items():
            trial.report(value, step)
        return _end(study, trial, DUPLICATE, earlier.state, value=earlier.value)
    trial.set_user_attr(
        CANDIDATE,
        {
            "fingerprint": architecture.fingerprint,
            "predicted_ms": prediction.ms,
            "low_ms": prediction.low_ms,
            "high_ms": prediction.high_ms,
            "architecture": architecture.to_dict(),
        },
    )
    others = claimed_before(study, trial.number, claim=CANDIDATE)
    taken = [other.user_attrs[CANDIDATE]["fingerprint"] for other in others]
    if architecture.fingerprint in taken or _known(study, architecture.fingerprint):
        return _end(study, trial, DUPLICATE, TrialState.FAIL)
    if progress(study, trials).trained + len(others) >= trials:
        requeue(study, trial.number, trial.params)
        return INTERRUPTED
    return _climb(study, trial, problem, architecture)


def _known(study: optuna.Study, fingerprint: str) -> FrozenTrial | None:
    """The trial that trained the same network before."""
    for trial in judged(study) + _failed(study):
        if trial.user_attrs[CANDIDATE]["fingerprint"] == fingerprint:
            return trial
    return None


def _climb(study: optuna.Study, trial: Trial, problem: Problem, architecture: Architecture) -> str:
    """Train rung after rung, until the last or until the pruner stops it."""
    scores: list[dict[str, float | None]] = []
    for rung in range(problem.rungs):
        try:
            score = problem.train(architecture, rung)
        except Diverged:
            return _end(study, trial, FAILED, TrialState.FAIL)
        scores.append({**asdict(score), "value": score.score})
        trial.set_user_attr(RUNGS, scores)
        trial.report(score.score, rung)
        if rung + 1 < problem.rungs and trial.should_prune():
            return _end(study, trial, PRUNED, TrialState.PRUNED)
    return _end(study, trial, COMPLETE, TrialState.COMPLETE, value=scores[-1]["value"])


def _end(study: optuna.Study, trial: Trial, outcome: str, state: TrialState, *, value: float | None = None) -> str:
    trial.set_user_attr(OUTCOME, outcome)
    study.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    return outcome


def judged(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials that were trained at least on one rung."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False, states=states)
    return [trial for trial in trials if trial.user_attrs.get(OUTCOME) in (COMPLETE, PRUNED)]


def _failed(study: optuna.Study) -> list[FrozenTrial]:
    """Trials whose training diverged."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    return [trial for trial in trials if trial.user_attrs.get(OUTCOME) == FAILED]


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

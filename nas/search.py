"""The main job, whole: images and a device in, a front of trained and measured networks out.

    data ─► space adapted to it ─► latency model of the target ─► survey, budget ─► study ─► finalists ─► front

Every step leaves what it made in the run's folder, so the same request goes on from wherever the last one stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import optuna
import torch

from latency.device import Device
from latency.settings import RuntimeSettings
from nas.adoption import adopt
from nas.candidates import CandidateTrainer
from nas.claims import FAILED, release, worker_name
from nas.correction import Correction, reference
from nas.costs import MS, UNKNOWN_MS, parse_against
from nas.data import Data
from nas.distillation import Lesson
from nas.errors import BudgetError, StudyError
from nas.faithfulness import RungFaithfulness, faithfulness
from nas.fidelity import DEFAULT_LADDER, Fidelity, Score
from nas.final_training import FinalTraining
from nas.finalists import Finalist, front_of
from nas.finals import Events, Finals
from nas.following import Following
from nas.joining import Model, StudyWork, cautious, work
from nas.limits import BUDGET, Limit, RewardKind, require_reward
from nas.mirror import Mirror
from nas.outcomes import ERROR, INFEASIBLE, Progress, completed, count_outcomes, count_redraws, progress
from nas.plan import publish
from nas.recipe import Recipe, load_recipe
from nas.run import Run
from nas.sampling.candidate_sampler import FLAT, SamplerName
from nas.sampling.decisions import Decisions
from nas.sampling.history import OUTCOME
from nas.stages import TwoStages
from nas.storage import STUDY_FILE, failures_told
from nas.study import STARTUP_TRIALS, Problem, prepare
from nas.survey import Answers, Survey, meeting, require_each, survey
from nas.threads import Setup, known_setup
from nas.workers import default_processes, side_by_side, threads_each
from searchspace.architecture import Architecture
from searchspace.recalling import recall
from searchspace.sampling import FixedSuggest
from searchspace.space import Space

DEFAULT_BUDGET_SHARE = 0.5  # of the space fits the budget that is chosen where none is given


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What may be chosen about a search.

    Attributes:
        budget_ms: milliseconds a network may take; None: the median of the space.
        limits: what a network must stay within beside it.
        pareto: whether the whole front counts, or only the best within the budget.
        against: what the front weighs accuracy against: names of costs (`nas.costs`), those of other targets among them.
        reward: what the best is judged by.
        sampler: which sampler draws the candidates.
        stages: whether depths and widths are searched first and blocks then, or all at once.
        start: networks to begin with, such as another search's best; those that are not of the space are candidates as they are.
        trials: candidates to train.
        finalists: candidates to train fully; more are added while the front has fewer than three networks.
        ladder: rungs of brief training.
        score: what candidates are compared by after a rung.
        warm_start: candidates begin with the weights of the most similar one that was trained before.
        workers: processes that train side by side, the cores divided among them; None: one per card, or where there is none one
            per core.
        recipe: of brief training, whose length and schedule are the rungs'.
        final_recipe: of full training; None: the shipped `full`, of 20 epochs, but no more than 40,000 images.
        final_epochs: length of full training in place of its recipe's.
        lesson: what finalists learn from beside the labels.
        storage: Optuna storage; None: a file in the run's folder.
        checkpoints: URL of a place where candidates' checkpoints are exchanged with other machines and finalists go; None:
            nowhere.
        study: name of the study in it.
        seed: everything random follows from it.

    Raises:
        StudyError: the reward cannot be combined with the score, or with `pareto`; there is no such cost, or no front.
    """

    budget_ms: float | None = None
    limits: tuple[Limit, ...] = ()
    pareto: bool = False
    against: tuple[str, ...] = (MS,)
    reward: RewardKind = "accuracy"
    sampler: SamplerName = "auto"
    stages: bool = False
    start: tuple[Architecture, ...] = ()
    trials: int = 24
    finalists: int = 5
    ladder: tuple[Fidelity, ...] = DEFAULT_LADDER
    score: Score = "accuracy"
    warm_start: bool = False
    workers: int | None = None
    recipe: Recipe = field(default_factory=lambda: load_recipe("brief"))
    final_recipe: Recipe | None = None
    final_epochs: float | None = None
    lesson: Lesson | None = None
    storage: str | None = None
    checkpoints: str | None = None
    study: str = "search"
    seed: int = 0

    def __post_init__(self) -> None:
        require_reward(self.reward, score=self.score, pareto=self.pareto)
        if self.against != (MS,):
            targets = [limit.target for limit in self.limits if limit.target is not None]
            parse_against(self.against, pareto=self.pareto, targets=targets)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        budget_ms: what a network might take.
        limits: what it had to stay within beside.
        outcomes: how trials ended, by name.
        front: fully trained networks that no other beats in accuracy at no more latency, fastest first; or at no more of any cost
            that was asked for, those of the least first cost first.
        finalists: all fully trained networks, in the order of their training.
        rungs: how far the scores of each could be trusted.
        feasible_share: share of random networks of the space within the budget and the other limits.
        correction: of the latency model, where the finalists' times say that it was off; their predictions are corrected.
        redraws: candidates that were drawn again, because they were beyond a limit or known, before a trial was spent on them.
        study: name of the study.
        against: names of the costs that the front is against.
    """

    budget_ms: float
    outcomes: dict[str, int]
    front: tuple[Finalist, ...]
    finalists: tuple[Finalist, ...]
    rungs: tuple[RungFaithfulness, ...]
    feasible_share: float
    redraws: int
    study: str
    limits: tuple[Limit, ...] = ()
    correction: Correction | None = None
    against: tuple[str, ...] = (MS,)

    @property
    def best(self) -> Finalist | None:
        """The most accurate network whose measured latency is within the budget."""
        within = [finalist for finalist in self.front if finalist.latency_ms <= self.budget_ms]
        return max(within, key=lambda finalist: (finalist.accuracy, -finalist.loss), default=None)


@failures_told()
def run_search(
    run: Run,
    *,
    space: Space,
    data: Mapping[int, Data],
    target: str,
    device: Device | None,
    runtime: RuntimeSettings,
    model: Model,
    settings: SearchSettings,
    events: Events,
) -> SearchResult:
    """Search, train the finalists, measure them.

    Args:
        run: the folder everything goes to.
        space: adapted to the data.
        data: images at each resolution of the space, in pixels; the test split is never looked at.
        target: its name.
        device: where finalists are measured; None: they are not, and predictions stand for it.
        runtime: how networks run there.
        model: predicts latencies there.
        settings: what may be chosen.
        events: who watches.

    Raises:
        BudgetError: no network of the space meets the budget, or the other limits.
        StudyError: the study cannot be used, the space is used up, or no candidate could be trained.
    """
    predict = cautious(model, events.note)

    def milliseconds(architecture: Architecture) -> float:
        return predict(architecture).ms

    surveyed = survey(space, milliseconds, limits=settings.limits, seed=settings.seed)
    if surveyed.fastest_ms >= UNKNOWN_MS:
        raise StudyError(
            f"the latency model of {target!r} must know networks of the space, it can predict none of {len(surveyed.answers)}: "
            "measure some by `nas profile` with the same --target and --space"
        )
    require_each(space, surveyed, settings.limits, seed=settings.seed)
    budget_ms = _budget(run, surveyed, settings.budget_ms, events)
    share, nearest = surveyed.feasible_share(budget_ms), None
    if share == 0:
        limits = (Limit(BUDGET, budget_ms, milliseconds), *settings.limits)
        nearest = meeting(space, surveyed, limits, seed=settings.seed)
    if share < 0.01:
        others = " and the other limits" if settings.limits else ""
        events.note(
            f"only {share:.1%} of random networks meet {budget_ms:g} ms{others}: expect many to be rejected untrained"
        )
    workers = min(settings.workers or default_processes(), settings.trials)
    recipe = _set_up(run, settings.recipe, _typical(space, surveyed), workers)
    trainer = CandidateTrainer(
        data=data,
        recipe=recipe,
        ladder=settings.ladder,
        folder=run.file("candidates"),
        seed=settings.seed,
        score=settings.score,
        warm_start=settings.warm_start,
        mirror=Mirror(settings.checkpoints) if settings.checkpoints else None,
    )
    identity = {
        "space": space.fingerprint,
        "data": [data[resolution].fingerprint for resolution in space.resolution],
        "target": target,
        "rungs": [str(fidelity) for fidelity in settings.ladder],
        "score": settings.score,
        "warm_start": settings.warm_start,
        "seed": settings.seed,
        "pareto": settings.pareto,
        "reward": settings.reward,
    }
    if changed := departure(settings.recipe, "brief"):
        identity["recipe"] = changed
    if settings.against != (MS,):
        identity["against"] = list(settings.against)
    if trainer.mirror is not None:
        trainer.mirror.claim(identity)
    task = StudyWork(
        url=settings.storage or f"sqlite:///{run.file('study.db')}",
        name=settings.study,
        identity=identity,
        seed=settings.seed,
        space=space,
        model=model,
        budget_ms=budget_ms,
        trainer=trainer,
        trials=settings.trials,
        limits=settings.limits,
        pareto=settings.pareto,
        against=settings.against,
        reward=settings.reward,
        sampler=settings.sampler,
        stages=settings.stages,
    )
    study, problem = task.open(events.note), task.problem()
    run.write_json(STUDY_FILE, {"study": study.study_name})
    if reused := adopt(study, problem):
        events.note(f"{reused} candidates of the search with other limits teach this one; --trials counts new ones")
    if settings.storage is not None:  # others may join it; what lies in the run's folder is this machine's
        publish(study, task, run)
        events.note(
            f"the study is called {study.study_name!r}: others join it by `nas worker --study {study.study_name}`"
        )
    recalled = [(architecture, recall(space, architecture)) for architecture in settings.start]
    given = [answers for _, answers in recalled if answers is not None]
    outside = [architecture for architecture, answers in recalled if answers is None]
    if outside and settings.sampler in FLAT:
        events.note(
            f"the sampler {settings.sampler} knows networks of the space only: {len(outside)} others are left out"
        )
        outside = []
    first = _first(problem, surveyed, settings) if nearest is None else [nearest]
    prepare(study, first, given=given, outside=outside, local=settings.storage is None)
    following = Following(events.done)

    def watch(state: Progress) -> None:
        following(state)
        _tell(state, events)

    watch(progress(study, settings.trials))
    if workers == 1:
        work(task, note=events.note, on_wait=events.note, on_progress=watch)
    elif progress(study, settings.trials).trained < settings.trials:
        side_by_side(
            task,
            processes=workers,
            on_look=lambda: watch(progress(study, settings.trials)),
            on_death=lambda pid: release(study, worker_name(pid)),
            on_note=events.note,
        )
    tried = completed(study)
    if not tried:
        raise StudyError(_nothing_trained(study, settings))
    training = FinalTraining(
        trainer=trainer,
        folder=run.file("finalists"),
        recipe=settings.final_recipe,
        epochs=settings.final_epochs,
        lesson=settings.lesson,
    )
    finals = Finals(training, data, device, runtime, settings.finalists, workers, events, reference(model))
    finalists, corrected = finals.finalists(tried, budget_ms)
    rungs = faithfulness(
        study, settings.ladder, {one.tried.architecture.fingerprint: one.shipped.trained_accuracy for one in finalists}
    )
    for rung in rungs:
        if rung.warning:
            events.note(rung.warning)
    result = SearchResult(
        budget_ms=budget_ms,
        limits=settings.limits,
        outcomes=dict(count_outcomes(study)),
        front=tuple(front_of(finalists, budget_ms=budget_ms)),
        finalists=tuple(finalists),
        rungs=rungs,
        feasible_share=share,
        redraws=count_redraws(study),
        study=study.study_name,
        correction=corrected,
        against=settings.against,
    )
    if result.best is None:
        events.note(_none_within(result))
    return result


def _nothing_trained(study: optuna.Study, settings: SearchSettings) -> str:
    """Why no candidate reached the last rung, and what to do."""
    failed = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get(OUTCOME) == FAILED]
    raised = [trial.user_attrs[ERROR] for trial in failed if ERROR in trial.user_attrs]
    wanted = "some candidate must be trained to the last rung"
    if raised:
        return f"{wanted}, but training {len(raised)} of {settings.trials} raised an error, the last: {raised[-1]}"
    return (
        f"{wanted}, but the loss of {len(failed)} of {settings.trials} became infinite; "
        "check the images and labels (the notes on the data), lower the learning rate of --recipe, or try more --trials"
    )


def _first(problem: Problem, surveyed: Survey, settings: SearchSettings) -> Sequence[Answers]:
    """What a new study begins with: networks that are spread over the latencies."""
    if not settings.stages:
        return surveyed.spread(problem.budget_ms, STARTUP_TRIALS)
    stages = TwoStages(Decisions.of(problem.space), settings.trials)
    return stages.first(
        lambda one: problem.predict(one).ms,
        limit_ms=problem.budget_ms,
        limits=problem.limits,
        count=STARTUP_TRIALS,
        seed=settings.seed,
    )


def _none_within(result: SearchResult) -> str:
    """What to do where no finalist is within the budget."""
    nearest = min(result.finalists, key=lambda finalist: finalist.latency_ms)
    name, predicted_ms = nearest.tried.architecture.fingerprint, nearest.tried.predicted_ms
    return (
        f"no finalist is within the budget of {result.budget_ms:g} ms, so there is no best network: the nearest, "
        f"{name}, takes {nearest.latency_ms:.3g} ms (predicted {predicted_ms:.3g}): "
        "give more --trials, more --finalists or a higher --budget-ms"
    )


def departure(recipe: Recipe, name: str) -> dict[str, Any]:
    """What a recipe has other than the shipped one of that name, as plain data."""
    shipped = load_recipe(name).to_dict()
    return {key: value for key, value in recipe.to_dict().items() if value != shipped[key]}


def _budget(run: Run, surveyed: Survey, asked_ms: float | None, events: Events) -> float:
    """The budget in milliseconds: the one asked for if it can be met, else one that is chosen once for the run."""
    if asked_ms is None:
        chosen: float = run.once("budget_ms", lambda: float(f"{surveyed.quantile_ms(DEFAULT_BUDGET_SHARE):.2g}"))
        events.note(f"no budget was given: {chosen:g} ms it is, about the median of the space on this target")
        return chosen
    if surveyed.fastest_ms > asked_ms:
        raise BudgetError(
            f"the budget must be one that some network of the space meets, got {asked_ms:g} ms; "
            f"the fastest found is predicted at {surveyed.fastest_ms:.3g} ms: raise --budget-ms, or give a --space of faster ones"
        )
    return asked_ms


def _set_up(run: Run, recipe: Recipe, typical: Architecture, workers: int) -> Recipe:
    """Sets torch's threads, chosen once for the run; returns the recipe with the memory layout that suits a typical network.

    Processes side by side have their share of the cores, whatever this one has: the layout is the one that is fastest there.
    """

    def choose() -> dict[str, Any]:
        here = known_setup(typical, recipe)
        beside = here if workers == 1 else known_setup(typical, recipe, threads=threads_each(workers))
        return asdict(Setup(here.threads, beside.channels_last))

    setup = Setup(**run.once("setup", choose))
    torch.set_num_threads(setup.threads)
    return replace(recipe, channels_last=setup.channels_last)


def _typical(space: Space, surveyed: Survey) -> Architecture:
    """A network of median latency."""
    return space.sample(FixedSuggest(surveyed.answers[len(surveyed.answers) // 2]))


def _tell(state: Progress, events: Events) -> None:
    best = "" if state.best is None else f", best {state.best:.1%}"
    rejected = state.outcomes.get(INFEASIBLE, 0)
    events.progress(f"candidates trained{best}, {rejected} rejected untrained", state.trained, state.wanted)

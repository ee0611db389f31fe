"""The main job, whole: images and a device in, a front of trained and measured networks out.

    data ─► space adapted to it ─► latency model of the target ─► survey, budget ─► study ─► finalists ─► front

Every step leaves what it made in the run's folder, so the same request goes on from wherever the last one stopped.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from latency.device import Device
from latency.errors import DeviceUnreachable, UnmeasuredKernel
from latency.settings import RuntimeSettings
from latency.timing import Timing
from nas.candidates import CandidateTrainer
from nas.checkpoint import load_checkpoint
from nas.data import Data
from nas.deployment import export_onnx, first_images
from nas.errors import BudgetError
from nas.fidelity import DEFAULT_LADDER, Fidelity, RankAgreement, rank_agreement
from nas.finalists import Finalist, measure, pareto_front, ranked, train_finalist
from nas.recipe import Recipe, load_recipe
from nas.run import Run
from nas.study import (
    INFEASIBLE,
    Prediction,
    Problem,
    Progress,
    Tried,
    completed,
    count_outcomes,
    open_study,
    prepare,
    run_trials,
    rung_agreement,
)
from nas.survey import Survey, survey
from nas.threads import fastest_threads
from searchspace.architecture import Architecture
from searchspace.sampling import FixedSuggest
from searchspace.space import Space

DEFAULT_BUDGET_SHARE = 0.5  # of the space fits the budget that is chosen where none is given
FRONT_AT_LEAST = 3
FINAL_EPOCHS = 20.0
FINAL_IMAGES = 40_000


class Model(Protocol):
    """A latency model, as the search needs it."""

    def predict(self, architecture: Architecture) -> Prediction: ...


class Events(Protocol):
    """What a search tells whoever watches: remarks, and how far the work at hand is."""

    def note(self, message: str) -> None: ...
    def progress(self, what: str, done: int, total: int | None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What may be chosen about a search.

    Attributes:
        budget_ms: milliseconds a network may take; None: the median of the space.
        trials: candidates to train.
        finalists: candidates to train fully; more are added while the front has fewer than three networks.
        ladder: rungs of brief training.
        final_epochs: length of full training; None: 20 epochs, but no more than 40,000 images.
        storage: Optuna storage; None: a file in the run's folder.
        study: name of the study in it.
        seed: everything random follows from it.
    """

    budget_ms: float | None = None
    trials: int = 24
    finalists: int = 5
    ladder: tuple[Fidelity, ...] = DEFAULT_LADDER
    final_epochs: float | None = None
    storage: str | None = None
    study: str = "search"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        budget_ms: what a network might take.
        outcomes: how trials ended, by name.
        front: fully trained networks that no other beats in accuracy at no more latency, fastest first.
        finalists: all fully trained networks, in the order of their training.
        rungs: how alike each rung ranked the candidates as the next, the last one compared with full training.
        feasible_share: share of random networks of the space within the budget.
    """

    budget_ms: float
    outcomes: dict[str, int]
    front: tuple[Finalist, ...]
    finalists: tuple[Finalist, ...]
    rungs: tuple[RankAgreement, ...]
    feasible_share: float

    @property
    def best(self) -> Finalist | None:
        """The most accurate network whose measured latency is within the budget."""
        within = [finalist for finalist in self.front if finalist.latency_ms <= self.budget_ms]
        return max(within, key=lambda finalist: (finalist.accuracy, -finalist.loss), default=None)


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
        BudgetError: no network of the space meets the budget.
        StudyError: the study cannot be used, or the space is used up.
    """
    predict = _cautious(model, events)
    surveyed = survey(space, lambda architecture: predict(architecture).ms, seed=settings.seed)
    budget_ms = _budget(run, surveyed, settings.budget_ms, events)
    trainer = CandidateTrainer(
        data=data,
        recipe=load_recipe("brief"),
        ladder=settings.ladder,
        folder=run.file("candidates"),
        seed=settings.seed,
    )
    identity = {
        "space": space.fingerprint,
        "data": [data[resolution].fingerprint for resolution in space.resolution],
        "target": target,
        "budget_ms": budget_ms,
        "rungs": [fidelity.images for fidelity in settings.ladder],
        "seed": settings.seed,
    }
    url = settings.storage or f"sqlite:///{run.file('study.db')}"
    study = open_study(url, settings.study, seed=settings.seed, identity=identity)
    prepare(study, surveyed, budget_ms=budget_ms, local=settings.storage is None)
    torch.set_num_threads(run.once("threads", lambda: fastest_threads(_typical(space, surveyed), trainer.recipe)))
    problem = Problem(space, predict, budget_ms, trainer, len(settings.ladder))
    run_trials(study, problem, trials=settings.trials, on_progress=lambda state: _tell(state, events))
    ending = _Ending(run, data, trainer, device, runtime, settings, events)
    finalists = ending.finalists(ranked(completed(study)))
    full = rank_agreement([one.tried.accuracy for one in finalists], [one.accuracy for one in finalists])
    return SearchResult(
        budget_ms=budget_ms,
        outcomes=dict(count_outcomes(study)),
        front=tuple(pareto_front(finalists)),
        finalists=tuple(finalists),
        rungs=(*rung_agreement(study, len(settings.ladder)), full),
        feasible_share=surveyed.feasible_share(budget_ms),
    )


@dataclass(frozen=True)
class _Ending:
    """Full training and measuring of what the study found."""

    run: Run
    data: Mapping[int, Data]
    trainer: CandidateTrainer
    device: Device | None
    runtime: RuntimeSettings
    settings: SearchSettings
    events: Events

    def finalists(self, candidates: Sequence[Tried]) -> list[Finalist]:
        """The first of `candidates`, trained and measured; more of them while their front is too small."""
        count = min(self.settings.finalists, len(candidates))
        while True:
            finalists = self._measured([self._trained(candidates, index, count) for index in range(count)])
            enough = len(pareto_front(finalists)) >= min(FRONT_AT_LEAST, self.settings.finalists)
            if enough or count == min(2 * self.settings.finalists, len(candidates)):
                return finalists
            count += 1

    def _trained(self, candidates: Sequence[Tried], index: int, count: int) -> tuple[Tried, Path]:
        candidate = candidates[index]
        rungs = len(self.settings.ladder)

        def on_progress(what: str, done: int, total: int | None) -> None:
            self.events.progress(f"training finalist {index + 1} of {count}: {what}", done, total)

        for rung in range(rungs):  # where the study outlived the run's folder, its candidates are trained once more
            self.trainer(candidate.architecture, rung)
        data = self.data[candidate.architecture.resolution]
        path = train_finalist(
            candidate,
            self.trainer.checkpoint(candidate.architecture, rungs - 1),
            data=data,
            recipe=self._recipe(data),
            seed=self.settings.seed,
            skip_images=self.trainer.images_before(rungs),
            folder=self.run.file("finalists"),
            on_progress=on_progress,
        )
        return candidate, path

    def _measured(self, trained: Sequence[tuple[Tried, Path]]) -> list[Finalist]:
        """Export every finalist and measure what was exported, all of them interleaved."""
        exported = []
        for candidate, path in trained:
            checkpoint = load_checkpoint(path)
            data = self.data[candidate.architecture.resolution]
            images = first_images(data.validation, data)
            onnx = export_onnx(checkpoint, path.with_suffix(".onnx"), images=images).path
            exported.append((candidate, path, onnx, checkpoint.metrics))
        models = [onnx.read_bytes() for _, _, onnx, _ in exported]
        timings: Sequence[Timing | None] = [None] * len(models)
        reason = None
        if self.device is None:
            reason = "there is no device: its latency is known from published figures only"
        else:
            try:
                timings = measure(self.device, models, settings=self.runtime, on_progress=self.events.progress)
            except DeviceUnreachable as error:  # what was trained is worth more than the time it takes
                reason = str(error)
                self.events.note(f"{error}: finalists go by their predictions; the same command measures them later")
        return [
            Finalist(candidate, path, onnx, metrics["accuracy"], metrics["loss"], timing, reason)
            for (candidate, path, onnx, metrics), timing in zip(exported, timings, strict=True)
        ]

    def _recipe(self, data: Data) -> Recipe:
        """The full recipe, at the length that was asked for or at one that a laptop can bear."""
        recipe = load_recipe("full")
        if self.settings.final_epochs is not None:
            return dataclasses.replace(recipe, epochs=self.settings.final_epochs)
        images = min(round(FINAL_EPOCHS * len(data.train)), FINAL_IMAGES)
        return dataclasses.replace(recipe, epochs=None, images=images)


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
    share = surveyed.feasible_share(asked_ms)
    if share < 0.01:
        events.note(f"only {share:.1%} of random networks meet {asked_ms:g} ms: expect many to be rejected untrained")
    return asked_ms


@dataclass(frozen=True)
class _Unpredictable:
    """Stands for the latency of a network with a kernel that was never measured: too slow for any budget."""

    ms: float = 1e9
    low_ms: float = 1e9
    high_ms: float = 1e9


def _cautious(model: Model, events: Events) -> Callable[[Architecture], Prediction]:
    """The model's predictions; networks with a kernel that was never measured are left out, which is said once for each."""
    told: set[str] = set()

    def predict(architecture: Architecture) -> Prediction:
        try:
            return model.predict(architecture)
        except UnmeasuredKernel as reason:
            if str(reason) not in told:
                told.add(str(reason))
                events.note(f"networks are left out: {reason}")
            return _Unpredictable()

    return predict


def _typical(space: Space, surveyed: Survey) -> Architecture:
    """A network of median latency."""
    return space.sample(FixedSuggest(surveyed.answers[len(surveyed.answers) // 2]))


def _tell(state: Progress, events: Events) -> None:
    best = "" if state.best is None else f", best {state.best:.1%}"
    rejected = state.outcomes.get(INFEASIBLE, 0)
    events.progress(f"candidates trained{best}, {rejected} rejected untrained", state.trained, state.wanted)

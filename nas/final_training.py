"""Full training of the finalists, side by side where there are several processes."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from nas.candidates import CandidateTrainer
from nas.data import Data
from nas.distillation import Lesson
from nas.finalists import train_finalist
from nas.recipe import Recipe, load_recipe
from nas.study import Tried
from nas.workers import Place

EPOCHS = 20.0
IMAGES = 40_000
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class FinalTraining:
    """Trains finalists fully, from their brief weights; processes that share the folder share the work.

    Attributes:
        trainer: what trained them briefly.
        folder: where their checkpoints go.
        epochs: length; None: 20 epochs, but no more than 40,000 images.
        lesson: what they learn from beside the labels.
        candidates: whom a process of several trains.
    """

    trainer: CandidateTrainer
    folder: Path
    epochs: float | None = None
    lesson: Lesson | None = None
    candidates: tuple[Tried, ...] = ()

    def __call__(self, place: Place) -> None:
        """Train the candidates that no other process is at, as one of several."""
        here = dataclasses.replace(self, trainer=dataclasses.replace(self.trainer, device=place.device))
        for candidate in self.candidates:
            lock = self.path(candidate).with_suffix(".lock")
            lock.parent.mkdir(parents=True, exist_ok=True)
            try:
                with FileLock(lock, timeout=0):
                    here.train(candidate)
            except Timeout:
                continue

    def path(self, candidate: Tried) -> Path:
        """Where a finalist's checkpoint lies."""
        return self.folder / f"{candidate.architecture.fingerprint}.pt"

    def missing(self, candidates: Sequence[Tried]) -> list[Tried]:
        """Those that are not trained fully yet."""
        return [candidate for candidate in candidates if not self.path(candidate).exists()]

    def train(self, candidate: Tried, *, on_progress: Progress | None = None) -> Path:
        """Train one of them, unless it was; returns where its checkpoint lies."""
        architecture, rungs = candidate.architecture, len(self.trainer.ladder)
        for rung in range(rungs):  # where the study outlived the run's folder, its candidates are trained once more
            self.trainer(architecture, rung)
        data = self.trainer.data[architecture.resolution]
        return train_finalist(
            self.trainer.checkpoint(architecture, rungs - 1),
            path=self.path(candidate),
            data=data,
            recipe=self._recipe(data),
            seed=self.trainer.seed,
            skip_images=self.trainer.images_before(architecture, rungs),
            device=self.trainer.device,
            distillation=None if self.lesson is None else self.lesson.distillation(self.trainer.device),
            on_progress=on_progress,
        )

    def _recipe(self, data: Data) -> Recipe:
        """The full recipe, at the length that was asked for or at one that a laptop can bear."""
        recipe = load_recipe("full")
        if self.epochs is not None:
            return dataclasses.replace(recipe, epochs=self.epochs)
        return dataclasses.replace(recipe, epochs=None, images=min(round(EPOCHS * len(data.train)), IMAGES))

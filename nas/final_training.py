"""Full training of the finalists, side by side where there are several processes."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from nas.candidates import CandidateTrainer
from nas.data import Data
from nas.distillation import Lesson
from nas.errors import Diverged
from nas.finalists import state_file, train_finalist
from nas.recipe import Recipe, load_recipe
from nas.study import Tried
from nas.workers import Place
from searchspace.files import write_atomically

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
        """Those that are not trained fully yet, and have not failed."""
        return [one for one in candidates if not self.path(one).exists() and self.failure(one) is None]

    def failure(self, candidate: Tried) -> str | None:
        """Why its training failed, None where it did not."""
        try:
            return self._failed(candidate).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def train(self, candidate: Tried, *, on_progress: Progress | None = None) -> None:
        """Train one of them, unless it was. One whose loss became infinite has failed: that is kept, and not tried again."""
        if self.failure(candidate) is not None:
            return
        try:
            self._train(candidate, on_progress)
        except Diverged as reason:
            write_atomically(self._failed(candidate), str(reason).encode())
            state_file(self.path(candidate)).unlink(missing_ok=True)

    def _failed(self, candidate: Tried) -> Path:
        return self.path(candidate).with_suffix(".failed")

    def _train(self, candidate: Tried, on_progress: Progress | None) -> None:
        architecture, rungs = candidate.architecture, len(self.trainer.ladder)
        for rung in range(rungs):  # where the study outlived the run's folder, its candidates are trained once more
            self.trainer(architecture, rung)
        data = self.trainer.data[architecture.resolution]
        train_finalist(
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
        """The full recipe in brief training's memory layout, at the length that was asked for or one that a laptop can bear."""
        recipe = dataclasses.replace(load_recipe("full"), channels_last=self.trainer.recipe.channels_last)
        if self.epochs is not None:
            return dataclasses.replace(recipe, epochs=self.epochs)
        return dataclasses.replace(recipe, epochs=None, images=min(round(EPOCHS * len(data.train)), IMAGES))

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
from nas.finalists import ranked, state_file, train_finalist
from nas.joining import heard
from nas.outcomes import Tried
from nas.recipe import Recipe, load_recipe
from nas.workers import Place
from searchspace.files import write_atomically

EPOCHS = 20.0
IMAGES = 40_000
Progress = Callable[[str, int, int | None], None]


def by_worth(tried: Sequence[Tried]) -> list[Tried]:
    """Candidates in the order in which full training is worth it, by what the search compared them by."""
    known = {one.architecture: one for one in tried}
    return [known[one.architecture] for one in ranked([dataclasses.replace(one, accuracy=one.score) for one in tried])]


@dataclass(frozen=True, kw_only=True)
class FinalTraining:
    """Trains finalists fully, from their brief weights; processes that share the folder share the work.

    Attributes:
        trainer: what trained them briefly.
        folder: where their checkpoints go.
        recipe: how; None: the shipped `full`, cut to a length that a laptop can bear: 20 epochs, but at most 40,000 images.
        epochs: length in place of the recipe's.
        lesson: what they learn from beside the labels.
        candidates: whom a process of several trains.
    """

    trainer: CandidateTrainer
    folder: Path
    recipe: Recipe | None = None
    epochs: float | None = None
    lesson: Lesson | None = None
    candidates: tuple[Tried, ...] = ()

    def __call__(self, place: Place) -> None:
        """Train the candidates that no other process is at, as one of several."""
        trainer = dataclasses.replace(heard(self.trainer, place.note), device=place.device)
        here = dataclasses.replace(self, trainer=trainer)
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
        """The recipe at the length that was asked for, in brief training's memory layout where it says none."""
        recipe = self.recipe or dataclasses.replace(
            load_recipe("full"), epochs=None, images=min(round(EPOCHS * len(data.train)), IMAGES)
        )
        if recipe.channels_last is None:
            recipe = dataclasses.replace(recipe, channels_last=self.trainer.recipe.channels_last)
        return recipe if self.epochs is None else dataclasses.replace(recipe, epochs=self.epochs, images=None)

"""Brief training of a search's candidates: one rung after the other, each kept as a checkpoint of its own."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.data import Data
from nas.fidelity import Fidelity
from nas.recipe import Recipe
from nas.study import RungScore
from nas.training import train
from searchspace.architecture import Architecture

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class CandidateTrainer:
    """Trains candidates on the rungs of `ladder`; a rung starts from the weights of the one before and sees new images.

    `data` are the images at each resolution that candidates may have, in pixels. A rung whose checkpoint is already in
    `folder` is not trained again: that is how a killed trial goes on.
    """

    data: Mapping[int, Data]
    recipe: Recipe
    ladder: tuple[Fidelity, ...]
    folder: Path
    seed: int
    on_progress: Progress | None = None

    def __call__(self, architecture: Architecture, rung: int) -> RungScore:
        """Score of the candidate on that rung.

        Raises:
            Diverged: the loss became infinite or not a number.
        """
        path = self.checkpoint(architecture, rung)
        if not path.exists():
            self._train(architecture, rung, path)
        metrics = load_checkpoint(path).metrics
        return RungScore(metrics["accuracy"], metrics["loss"], metrics["seconds"])

    def checkpoint(self, architecture: Architecture, rung: int) -> Path:
        """Where the candidate's checkpoint of that rung lies."""
        return self.folder / f"{architecture.fingerprint}.rung{rung}.pt"

    def images_before(self, rung: int) -> int:
        """Images that a candidate has seen before that rung."""
        return sum(fidelity.images for fidelity in self.ladder[:rung])

    def _train(self, architecture: Architecture, rung: int, path: Path) -> None:
        result = train(
            load_checkpoint(self.checkpoint(architecture, rung - 1)) if rung else architecture,
            self.data[architecture.resolution],
            dataclasses.replace(self.recipe, images=self.ladder[rung].images, epochs=None),
            seed=self.seed,
            skip_images=self.images_before(rung),
            on_progress=self.on_progress,
        )
        metrics = {**result.checkpoint.metrics, "seconds": result.seconds}
        save_checkpoint(path, dataclasses.replace(result.checkpoint, metrics=metrics))

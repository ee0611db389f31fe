"""Brief training of a search's candidates: one rung after the other, each kept as a checkpoint of its own."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nas.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.data import Data
from nas.fidelity import Fidelity, Score
from nas.inheritance import fresh_state, inherit, likeness
from nas.mirror import Mirror
from nas.recipe import Recipe
from nas.study import RungScore
from nas.training import TrainingResult, train
from nas.zero_cost import zero_cost_score
from searchspace.architecture import Architecture

EMA_DECAY = 0.98  # of the average that `ema-accuracy` judges: a rung has few steps
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class CandidateTrainer:
    """Trains candidates on the rungs of `ladder`; a rung starts from the weights of the one before and sees new images.

    A rung whose checkpoint is already in `folder` is not trained again, and one that was interrupted goes on: that is how a
    killed trial climbs on.

    Attributes:
        data: images at each resolution that candidates or rungs may have, in pixels.
        recipe: how candidates are trained; the rung sets its length and schedule.
        ladder: the rungs.
        folder: where checkpoints are kept.
        seed: everything random follows from it.
        score: what candidates are compared by.
        warm_start: begin with the weights of the most similar candidate in `folder` where there is one.
        device: None for CUDA where there is a card, else the CPU.
        on_progress: told how far the rung at hand is.
        mirror: where processes that do not share `folder` exchange checkpoints; None: nowhere.
    """

    data: Mapping[int, Data]
    recipe: Recipe
    ladder: tuple[Fidelity, ...]
    folder: Path
    seed: int
    score: Score = "accuracy"
    warm_start: bool = False
    device: str | None = None
    on_progress: Progress | None = None
    mirror: Mirror | None = None
    _relatives: dict[Path, Architecture] = field(default_factory=dict, repr=False)

    def __call__(self, architecture: Architecture, rung: int) -> RungScore:
        """Score of the candidate on that rung.

        Raises:
            Diverged: the loss became infinite or not a number.
        """
        zero_cost = self.ladder[rung].zero_cost
        if zero_cost:
            value, seconds = zero_cost_score(
                zero_cost, architecture, self.data[architecture.resolution], seed=self.seed
            )
            return RungScore(None, None, seconds, value=value)
        path, mirror = self.checkpoint(architecture, rung), self.mirror
        if not path.exists() and not (mirror and mirror.fetch(path)):
            self._train(architecture, rung, path)
            if mirror:
                mirror.put(path)
        metrics = load_checkpoint(path).metrics
        accuracy, loss, training_loss = metrics["accuracy"], metrics["loss"], metrics["training_loss"]
        value = {"loss": -loss, "training-loss": -training_loss}.get(self.score, accuracy)
        return RungScore(accuracy, loss, metrics["seconds"], training_loss, value)

    def checkpoint(self, architecture: Architecture, rung: int) -> Path:
        """Where the candidate's checkpoint of that rung lies."""
        return self.folder / f"{architecture.fingerprint}.rung{rung}.pt"

    def images_before(self, architecture: Architecture, rung: int) -> int:
        """Images that a candidate has seen before that rung."""
        split = len(self.data[architecture.resolution].train)
        return sum(fidelity.length(split) for fidelity in self.ladder[:rung])

    def _train(self, architecture: Architecture, rung: int, path: Path) -> None:
        fidelity = self.ladder[rung]
        data = self.data[fidelity.resolution or architecture.resolution]
        recipe = dataclasses.replace(
            self.recipe, images=fidelity.length(len(data.train)), epochs=None, schedule=fidelity.schedule
        )
        if self.score == "ema-accuracy":
            recipe = dataclasses.replace(recipe, ema_decay=EMA_DECAY)
        state_file, start_file = path.with_suffix(".state"), path.with_suffix(".start")
        start, ancestry = self._start(architecture, rung, data, start_file, begun=state_file.exists())
        result = train(
            start,
            data,
            recipe,
            seed=self.seed,
            device=self.device,
            state_file=state_file,
            skip_images=self.images_before(architecture, rung),
            on_progress=self.on_progress,
        )
        save_checkpoint(path, _with_figures(result, ancestry))
        state_file.unlink(missing_ok=True)
        start_file.unlink(missing_ok=True)

    def _start(
        self, architecture: Architecture, rung: int, data: Data, kept: Path, *, begun: bool
    ) -> tuple[Architecture | Checkpoint, Mapping[str, Any]]:
        """What a rung begins with, at the rung's resolution, and whose weights those are.

        A warm start is chosen once, and `kept` before anything is trained: others that are trained meanwhile do not change it.
        """
        shown = dataclasses.replace(architecture, resolution=data.resolution)
        if rung and not self.ladder[rung - 1].zero_cost:
            before = load_checkpoint(self.checkpoint(architecture, rung - 1))
            return dataclasses.replace(before, architecture=shown), {}
        if kept.exists():
            start = load_checkpoint(kept)
            return start, start.metrics
        relative = self._nearest(architecture) if self.warm_start and not begun else None
        if relative is None:
            return shown, {}
        trained = load_checkpoint(relative)
        state = inherit(fresh_state(shown, seed=self.seed), shown, trained.state, trained.architecture)
        share = likeness(architecture, self._relatives[relative])
        ancestry = {"inherited_from": relative.name.partition(".")[0], "inherited_share": share}
        start = dataclasses.replace(trained, architecture=shown, state=state, metrics=ancestry)
        save_checkpoint(kept, start)
        return start, ancestry

    def _nearest(self, architecture: Architecture) -> Path | None:
        """The checkpoint that has most in common with the architecture; of one network's the highest rung's."""
        paths = {path.name.partition(".")[0]: path for path in sorted(self.folder.glob("*.rung*.pt"))}
        paths.pop(architecture.fingerprint, None)
        for path in paths.values():
            if path not in self._relatives:
                known = load_checkpoint(path).architecture
                self._relatives[path] = dataclasses.replace(known, resolution=architecture.resolution)
        return max(paths.values(), key=lambda path: likeness(architecture, self._relatives[path]), default=None)


def _with_figures(result: TrainingResult, ancestry: Mapping[str, Any]) -> Checkpoint:
    """The trained network with everything a rung may be judged by."""
    training_loss = float(torch.tensor(result.losses).mean())
    metrics = {**result.checkpoint.metrics, "seconds": result.seconds, "training_loss": training_loss, **ancestry}
    return dataclasses.replace(result.checkpoint, metrics=metrics)

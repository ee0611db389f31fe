"""Training: one readable loop, from an architecture (or a checkpoint) and images to a network.

    train ─► _Run.__init__   network, optimiser, average, batches; then what an interrupted run left, if anything
             _Run.advance    step: batch ─► gradients ─► update; judged after every epoch, saved now and then
             _Run.result     the weights that were judged, and the learning curve

Everything random is a pure function of the seed and the image's or step's number, and so is the learning rate: a run that was
killed goes on from its state file as if nothing had happened (bit by bit on a CPU with the same number of threads).
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from latency.host import computing
from nas.average import Average
from nas.checkpoint import Checkpoint, DataRecord
from nas.data import Batches, Data
from nas.data.mixing import before
from nas.distillation import Distillation
from nas.errors import Diverged, TrainingError
from nas.evaluation import evaluate
from nas.memory import keep_freed_memory
from nas.optimisation import (
    augmentation,
    class_weights,
    cross_entropy,
    learning_rate,
    make_optimizer,
    mixing,
    number_format,
    with_dropout,
)
from nas.parallel import ALONE, Ranks
from nas.recipe import Recipe
from nas.training_state import Look, TrainingState, copied, training_identity
from searchspace.architecture import Architecture
from searchspace.network import Network

LOOK_EVERY = 10
"""Steps between looks at the loss: each makes a GPU wait."""

Progress = Callable[[str, int, int | None], None]


class Constraint(Protocol):
    """What trained weights must keep to, such as zeros that stay zero; `identity` tells one from another."""

    @property
    def identity(self) -> str: ...
    def apply(self, network: Network) -> None: ...


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained network.

    Attributes:
        checkpoint: last weights (the average where the recipe keeps one) with accuracy and loss on the validation split.
        best: weights at the best point of the curve; `checkpoint` where that is the last one.
        curve: validation after every epoch and at the end.
        losses: training loss of every step, nats.
        images: how many were trained on, counting those before an interruption.
        seconds: spent on training steps, without validation, saving and asking a teacher.
        finished: False if `stop` ended it early.
        notes: what a user should know.
    """

    checkpoint: Checkpoint
    best: Checkpoint
    curve: tuple[Look, ...]
    losses: tuple[float, ...]
    images: int
    seconds: float
    finished: bool
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float:
        """On the validation split, in [0, 1]."""
        return self.curve[-1].accuracy

    @property
    def loss(self) -> float:
        """Mean cross-entropy on the validation split, nats."""
        return self.curve[-1].loss

    @property
    def images_per_second(self) -> float:
        """Training speed."""
        return self.images / self.seconds


def train(
    start: Architecture | Checkpoint,
    data: Data,
    recipe: Recipe,
    *,
    seed: int = 0,
    device: torch.device | str | None = None,
    state_file: Path | None = None,
    save_every_s: float = 30.0,
    skip_images: int = 0,
    distillation: Distillation | None = None,
    constraint: Constraint | None = None,
    ranks: Ranks = ALONE,
    on_progress: Progress | None = None,
    on_look: Callable[[tuple[Look, ...]], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainingResult:
    """Train a network.

    It stands still between two steps while something is measured on this machine (see `latency.host.computing`).

    Args:
        start: an architecture, trained from a random start; or a checkpoint, whose weights are the start (a schedule begins anew:
            that is how a candidate climbs from one rung to the next).
        data: images; trained on `data.train`, judged on `data.validation`.
        recipe: how.
        seed: draws the random start, the order and augmentation of images, and dropout.
        device: None for CUDA where there is a card, else the CPU.
        state_file: where the run's state is kept. A run that was interrupted goes on from it; a finished one is not repeated.
        save_every_s: least seconds between two writings of the state; it is also written after every judgement.
        skip_images: images of the endless shuffled stream that earlier rungs have seen.
        distillation: a teacher to learn from beside the labels.
        constraint: what weights must keep to; put upon them at the start and after every step.
        ranks: this process among those that train together; each takes its part of every batch. They share the file system, and
            the first one alone writes and judges.
        on_progress: told what is going on, and how many of how many images are done.
        on_look: given the learning curve so far, whenever a point was added.
        stop: asked after every step; once it is true the training ends early, and can be resumed.

    Raises:
        Diverged: the loss became infinite or not a number.
        TrainingError: the architecture does not fit the data.
        CheckpointError: the state file is damaged, or belongs to another training.
    """
    place = torch.device(device) if device is not None else ranks.device()
    if place.type == "cpu":
        keep_freed_memory()
    cards = [place] if place.type == "cuda" else []
    tell, asked = on_progress or _silent, stop or _never
    with torch.random.fork_rng(cards):
        run = _Run(
            start,
            data,
            recipe,
            seed=seed,
            device=place,
            skip_images=skip_images,
            distillation=distillation,
            constraint=constraint,
            ranks=ranks,
        )
        if state_file is not None and ranks.shared(state_file.exists()):
            run.state.restore(state_file, run.identity)

        def wait(holder: str) -> None:
            tell(f"standing still while {holder}", run.images, run.total)

        with computing("training", on_wait=wait) as give_way:

            def ends() -> bool:
                give_way()
                return asked()

            finished = run.advance(state_file, save_every_s, tell, on_look=on_look or _unwatched, stop=ends)
        return run.result(finished=finished)


class _Run:
    """One training in progress: what stays the same in all its steps, and `state`, which does not."""

    def __init__(
        self,
        start: Architecture | Checkpoint,
        data: Data,
        recipe: Recipe,
        *,
        seed: int,
        device: torch.device,
        skip_images: int,
        distillation: Distillation | None,
        constraint: Constraint | None,
        ranks: Ranks,
    ) -> None:
        self.architecture = start.architecture if isinstance(start, Checkpoint) else start
        _check_fit(self.architecture, data)
        self.data, self.recipe, self.seed, self.device, self.skip_images = data, recipe, seed, device, skip_images
        self.distillation, self.constraint, self.ranks = distillation, constraint, ranks
        self.total = recipe.length(len(data.train))
        self.batch = recipe.batch(len(data.train))
        self.steps = self.total // self.batch
        if self.batch % ranks.count:
            raise TrainingError(
                f"the batch must be divisible among {ranks.count} processes, got {self.batch} images; change batch_size"
            )
        self.channels_last = recipe.channels_last is not False
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        torch.manual_seed(_seed(seed, "start"))
        network = Network(with_dropout(self.architecture, recipe), drop_path=recipe.drop_path).to(device)
        network.to(memory_format=layout)  # type: ignore[call-overload]
        if isinstance(start, Checkpoint):
            network.load_state_dict(start.state)
        if constraint is not None:
            constraint.apply(network)
        self.forward = ranks.wrapped(_compiled(network) if recipe.compile else network, device)
        self.autocast = number_format(recipe.precision, device)
        self.mixing = mixing(recipe)
        weights = class_weights(recipe, data)
        self.class_weights = None if weights is None else weights.to(device)
        self.identity = {
            **training_identity(start, data, recipe, seed=seed, skip_images=skip_images),
            "distillation": distillation.identity if distillation else "",
            "constraint": constraint.identity if constraint else "",
            "processes": ranks.count,
        }
        decay = recipe.ema_decay
        self.state = TrainingState(
            network=network,
            optimizer=make_optimizer(network, recipe),
            average=None if decay is None else Average(network, decay=decay, device=device, layout=layout),
            scaler=torch.amp.GradScaler(device.type, enabled=self.autocast is torch.float16),
            losses=torch.zeros(self.steps, device=device),
        )
        self.notes: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Trained on so far."""
        return self.state.step * self.batch

    def advance(
        self,
        state_file: Path | None,
        save_every_s: float,
        on_progress: Progress,
        *,
        on_look: Callable[[tuple[Look, ...]], None],
        stop: Callable[[], bool],
    ) -> bool:
        """Step to the end, or until told to stop; returns whether it is the end."""
        state = self.state
        if self._ended():
            return True
        batches = self.batches(on_progress)
        saved = time.monotonic()
        began = time.perf_counter()
        for images, labels, answers in batches:
            state.keep_best()
            self.gradients(images, labels, answers)
            self.update()
            state.step += 1
            asked = stop()
            looking = asked or state.step == self.steps or self._epoch_ended()
            if looking or state.step % LOOK_EVERY == 0:
                on_progress(self._describe(), self.images, self.total)
            saving = looking or time.monotonic() - saved >= save_every_s
            if looking or saving:
                state.seconds += time.perf_counter() - began
                if looking:
                    self.look()
                    on_look(tuple(state.curve))
                if state_file is not None and self.ranks.leads:
                    state.save(state_file, self.identity)
                saved, began = time.monotonic(), time.perf_counter()
            if asked or self._ended():
                break
        return self._ended()

    def batches(self, on_progress: Progress) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """What is left of the stream of training images, with labels and what a teacher says."""
        changes = augmentation(self.recipe, self.data)
        start, images = self.skip_images + self.images, self.total - self.images
        soft = None
        if self.distillation is not None:
            soft = self.distillation.labels(
                self.data,
                changes,
                start=self.skip_images,
                images=self.total,
                device=self.device,
                on_progress=on_progress,
            )
            self.notes = soft.notes
        batches = Batches(
            split=self.data.train,
            data=self.data,
            batch_size=self.batch,
            augment=changes,
            seed=self.seed,
            device=self.device,
            channels_last=self.channels_last,
            replicas=None if soft is None else len(soft.replicas),
            part=(self.ranks.rank, self.ranks.count),
        )
        if soft is not None:
            return batches.taught(soft.replicas, start=start, images=images)
        return ((*batch, None) for batch in batches.stream(start=start, images=images))

    def gradients(self, images: Tensor, labels: Tensor, answers: Tensor | None) -> None:
        """Forward and backward."""
        state = self.state
        state.network.train()
        drawn = _seed(
            self.seed, f"step {self.skip_images} {state.step}" + f" {self.ranks.rank}" * bool(self.ranks.rank)
        )
        torch.manual_seed(drawn)  # for dropout and drop path
        share = 1.0
        if self.mixing is not None:
            images, share = self.mixing.apply(images, seed=drawn)
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            logits = self.forward(images)
            loss = self.hard_loss(logits, labels)
            if share < 1:
                loss = share * loss + (1 - share) * self.hard_loss(logits, before(labels))
            if self.distillation is not None and answers is not None:
                loss = self.distillation.loss(loss, logits, answers, share=share)
        state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        state.losses[state.step] = loss.detach()

    def hard_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with the labels."""
        return cross_entropy(logits, labels, self.class_weights, smoothing=self.recipe.label_smoothing)

    def update(self) -> None:
        """Optimiser's step at the schedule's learning rate, and the average's."""
        state = self.state
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, state.step, steps=self.steps)
        if self.recipe.clip_norm is not None:
            state.scaler.unscale_(state.optimizer)
            torch.nn.utils.clip_grad_norm_(state.network.parameters(), self.recipe.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad()
        if self.constraint is not None:
            self.constraint.apply(state.network)
        if state.average is not None:
            state.average.update(state.step)

    def look(self) -> None:
        """Add a point to the learning curve.

        Raises:
            Diverged: the loss, on training or on validation images, is not finite.
        """
        state = self.state
        first = state.curve[-1].images // self.batch if state.curve else 0
        training_loss = self._finite(state.losses[first : state.step].mean().item())
        point = Look(self.images, training_loss, 0.0, 0.0)
        if self.ranks.leads:
            judged = evaluate(state.judged, self.data.validation, self.data)
            point = Look(self.images, training_loss, judged.accuracy, self._finite(judged.loss))
        state.add(self.ranks.shared(point))

    def result(self, *, finished: bool) -> TrainingResult:
        """What was reached."""
        state = self.state
        last = self._checkpoint(copied(state.judged), state.curve[-1])
        best = last if state.best is None else self._checkpoint(state.best, state.curve[state.best_point])
        return TrainingResult(
            checkpoint=last,
            best=best,
            curve=tuple(state.curve),
            losses=tuple(state.losses[: state.step].tolist()),
            images=self.images,
            seconds=state.seconds,
            finished=finished,
            notes=self.notes,
        )

    def _checkpoint(self, tensors: dict[str, Tensor], point: Look) -> Checkpoint:
        return Checkpoint(
            architecture=self.architecture,
            state=tensors,
            classes=self.data.classes,
            data=DataRecord.of(self.data),
            metrics={"accuracy": point.accuracy, "loss": point.loss, "images": point.images, "seed": self.seed},
            recipe=self.recipe.to_dict(),
        )

    def _ended(self) -> bool:
        patience = self.recipe.early_stop
        return self.state.step == self.steps or (patience is not None and self.state.epochs_without_gain() >= patience)

    def _epoch_ended(self) -> bool:
        epoch = len(self.data.train)
        return self.images // epoch > (self.images - self.batch) // epoch

    def _describe(self) -> str:
        loss, curve = self._finite(self.state.losses[self.state.step - 1].item()), self.state.curve
        return f"loss {loss:.3f}" + (f", accuracy {curve[-1].accuracy:.1%}" if curve else "")

    def _finite(self, loss: float) -> float:
        if math.isfinite(loss):
            return loss
        raise Diverged(
            f"the loss became {loss} within {self.images} images at a highest learning rate of {self.recipe.lr:g}; "
            "lower it, or give clip_norm"
        )


def _compiled(network: Network) -> torch.nn.Module:
    return torch.compile(network)  # type: ignore[return-value]


def _check_fit(architecture: Architecture, data: Data) -> None:
    for what, wanted, got in (
        ("classes", architecture.classes, len(data.classes)),
        ("channels", architecture.channels, data.channels),
        ("resolution", architecture.resolution, data.resolution),
    ):
        if wanted != got:
            raise TrainingError(f"{data.name}: {what} must be the architecture's, which has {wanted}, got {got}")


def _seed(seed: int, purpose: str) -> int:
    digest = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _silent(what: str, done: int, total: int | None) -> None:
    """Progress that nobody wants to see."""


def _unwatched(curve: tuple[Look, ...]) -> None:
    """A learning curve that nobody wants to see."""


def _never() -> bool:
    return False

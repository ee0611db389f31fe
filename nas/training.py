"""Training: one readable loop, from an architecture (or a checkpoint) and images to a network.

    train ─► _Run.__init__   network, optimiser, average, batches; then what an interrupted run left, if anything
             _Run.advance    step: batch ─► gradients ─► update; judged after every epoch, saved now and then
             _Run.result     the weights that were judged, and the learning curve

Everything random is a pure function of the seed and the image's or step's number, and so is the learning rate: a run that was
killed goes on from its state file as if nothing had happened (bit by bit on a CPU with the same number of threads).
"""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from latency.host import computing
from nas.average import Average
from nas.checkpoint import Checkpoint, DataRecord, pack, unpack
from nas.data import Batches, Data
from nas.distillation import Distillation
from nas.errors import CheckpointError, Diverged, TrainingError
from nas.evaluation import evaluate
from nas.optimisation import augmentation, learning_rate, make_optimizer, number_format, with_dropout
from nas.recipe import Recipe
from searchspace.architecture import Architecture
from searchspace.files import write_atomically
from searchspace.network import Network

STATE_FORMAT = 1
LOOK_EVERY = 10
"""Steps between looks at the loss: each makes a GPU wait."""

Progress = Callable[[str, int, int | None], None]


class Constraint(Protocol):
    """What trained weights must keep to, such as zeros that stay zero; `identity` tells one from another."""

    @property
    def identity(self) -> str: ...
    def apply(self, network: Network) -> None: ...


@dataclass(frozen=True)
class Look:
    """One point of the learning curve.

    Attributes:
        images: how many were trained on before it.
        training_loss: mean over the steps since the last point, nats.
        accuracy: on the validation split, of the average where the recipe keeps one.
        loss: the same network's mean cross-entropy there, nats.
    """

    images: int
    training_loss: float
    accuracy: float
    loss: float


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A trained network.

    Attributes:
        checkpoint: weights (the average where the recipe keeps one) with accuracy and loss on the validation split.
        curve: validation after every epoch and at the end.
        losses: training loss of every step, nats.
        images: how many were trained on, counting those before an interruption.
        seconds: spent on training steps, without validation and saving.
        finished: False if `stop` ended it early.
    """

    checkpoint: Checkpoint
    curve: tuple[Look, ...]
    losses: tuple[float, ...]
    images: int
    seconds: float
    finished: bool

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
    on_progress: Progress | None = None,
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
        on_progress: told what is going on, and how many of how many images are done.
        stop: asked after every step; once it is true the training ends early, and can be resumed.

    Raises:
        Diverged: the loss became infinite or not a number.
        TrainingError: the architecture does not fit the data.
        CheckpointError: the state file is damaged, or belongs to another training.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
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
        )
        if state_file is not None and state_file.exists():
            run.restore(state_file)

        def wait(holder: str) -> None:
            tell(f"standing still while {holder}", run.images, run.total)

        with computing("training", on_wait=wait) as give_way:

            def ends() -> bool:
                give_way()
                return asked()

            finished = run.advance(state_file, save_every_s, tell, ends)
        return run.result(finished=finished)


class _Run:
    """One training in progress: all that changes from step to step."""

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
    ) -> None:
        self.architecture = start.architecture if isinstance(start, Checkpoint) else start
        _check_fit(self.architecture, data)
        self.data, self.recipe, self.seed, self.device, self.skip_images = data, recipe, seed, device, skip_images
        self.total = recipe.length(len(data.train))
        self.batch = recipe.batch(len(data.train))
        self.steps = self.total // self.batch
        torch.manual_seed(_seed(seed, "start"))
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.network = Network(with_dropout(self.architecture, recipe)).to(device)
        self.network.to(memory_format=layout)  # type: ignore[call-overload]
        if isinstance(start, Checkpoint):
            self.network.load_state_dict(start.state)
        self.optimizer = make_optimizer(self.network, recipe)
        self.average = (
            Average(self.network, decay=recipe.ema_decay, device=device, layout=layout)
            if recipe.ema_decay is not None
            else None
        )
        self.autocast = number_format(recipe.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.autocast is torch.float16)
        self.distillation = distillation
        self.teacher = distillation.network(device, layout) if distillation else None
        self.identity = {
            **_identity(start, data, recipe, seed=seed, skip_images=skip_images),
            "distillation": distillation.identity if distillation else "",
            "constraint": constraint.identity if constraint else "",
        }
        self.constraint = constraint
        if constraint is not None:
            constraint.apply(self.network)
        self.step = 0
        self.losses = torch.zeros(self.steps, device=device)
        self.curve: list[Look] = []
        self.seconds = 0.0

    @property
    def images(self) -> int:
        """Trained on so far."""
        return self.step * self.batch

    def advance(
        self, state_file: Path | None, save_every_s: float, on_progress: Progress, stop: Callable[[], bool]
    ) -> bool:
        """Step to the end, or until told to stop; returns whether it is the end."""
        saved = time.monotonic()
        began = time.perf_counter()
        for images, labels in self.batches():
            self.gradients(images, labels)
            self.update()
            self.step += 1
            asked = stop()
            looking = asked or self.step == self.steps or self._epoch_ended()
            if looking or self.step % LOOK_EVERY == 0:
                on_progress(self._describe(), self.images, self.total)
            saving = looking or time.monotonic() - saved >= save_every_s
            if looking or saving:
                self.seconds += time.perf_counter() - began
                if looking:
                    self.look()
                if state_file is not None:
                    self.save(state_file)
                saved, began = time.monotonic(), time.perf_counter()
            if asked:
                break
        return self.step == self.steps

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """What is left of the stream of training images."""
        batches = Batches(
            split=self.data.train,
            data=self.data,
            batch_size=self.batch,
            augment=augmentation(self.recipe, self.data),
            seed=self.seed,
            device=self.device,
            channels_last=self.recipe.channels_last,
        )
        return batches.stream(start=self.skip_images + self.images, images=self.total - self.images)

    def gradients(self, images: Tensor, labels: Tensor) -> None:
        """Forward and backward."""
        self.network.train()
        torch.manual_seed(_seed(self.seed, f"step {self.skip_images} {self.step}"))  # for dropout
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            logits = self.network(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
            if self.distillation and self.teacher:
                with torch.no_grad():
                    taught = self.teacher(images)
                loss = self.distillation.loss(loss, logits, taught)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.losses[self.step] = loss.detach()

    def update(self) -> None:
        """Optimiser's step at the schedule's learning rate, and the average's."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step, steps=self.steps)
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.constraint is not None:
            self.constraint.apply(self.network)
        if self.average is not None:
            self.average.update(self.step)

    def look(self) -> None:
        """Add a point to the learning curve.

        Raises:
            Diverged: the loss, on training or on validation images, is not finite.
        """
        before = self.curve[-1].images // self.batch if self.curve else 0
        training_loss = self._finite(self.losses[before : self.step].mean().item())
        judged = evaluate(self.judged, self.data.validation, self.data)
        self.curve.append(Look(self.images, training_loss, judged.accuracy, self._finite(judged.loss)))

    @property
    def judged(self) -> Network:
        """The network that counts: the average where there is one."""
        return self.network if self.average is None else self.average.network

    def result(self, *, finished: bool) -> TrainingResult:
        """What was reached."""
        last = self.curve[-1]
        metrics = {"accuracy": last.accuracy, "loss": last.loss, "images": self.images, "seed": self.seed}
        checkpoint = Checkpoint(
            architecture=self.architecture,
            state={name: tensor.detach().cpu().contiguous() for name, tensor in self.judged.state_dict().items()},
            classes=self.data.classes,
            data=DataRecord.of(self.data),
            metrics=metrics,
            recipe=self.recipe.to_dict(),
        )
        losses = tuple(self.losses[: self.step].tolist())
        return TrainingResult(checkpoint, tuple(self.curve), losses, self.images, self.seconds, finished)

    def save(self, path: Path) -> None:
        """Write the state, all at once or not at all."""
        state = {
            "format": STATE_FORMAT,
            "identity": self.identity,
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "scaler": self.scaler.state_dict(),
            "losses": self.losses,
            "curve": [dataclasses.asdict(point) for point in self.curve],
        }
        write_atomically(path, pack(state))

    def restore(self, path: Path) -> None:
        """Go on from a state that `save` wrote.

        Raises:
            CheckpointError: the file is damaged, or of another training.
        """
        state = unpack(path, what="training state")
        if state.get("format") != STATE_FORMAT or not isinstance(state.get("identity"), dict):
            raise CheckpointError(
                f"{path}: a training state of format {STATE_FORMAT} is needed; remove it to start anew"
            )
        for key, value in self.identity.items():
            if state["identity"].get(key) != value:
                raise CheckpointError(
                    f"{path}: holds another training ({key} was {state['identity'].get(key)}, now {value}); "
                    "give the same settings again, or another place for the run"
                )
        try:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.network.load_state_dict(state["average"])
            self.scaler.load_state_dict(state["scaler"])
            self.losses.copy_(state["losses"])
            self.curve = [Look(**point) for point in state["curve"]]
            self.step, self.seconds = state["step"], state["seconds"]
            if not 0 < self.step <= self.steps or (self.step == self.steps and not self.curve):
                raise ValueError(f"step {self.step} of {self.steps}")
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path}: the training state is damaged; remove it to start anew") from error

    def _epoch_ended(self) -> bool:
        epoch = len(self.data.train)
        return self.images // epoch > (self.images - self.batch) // epoch

    def _describe(self) -> str:
        loss = self._finite(self.losses[self.step - 1].item())
        return f"loss {loss:.3f}" + (f", accuracy {self.curve[-1].accuracy:.1%}" if self.curve else "")

    def _finite(self, loss: float) -> float:
        if math.isfinite(loss):
            return loss
        raise Diverged(
            f"the loss became {loss} within {self.images} images at a highest learning rate of {self.recipe.lr:g}; "
            "lower it, or give clip_norm"
        )


def _check_fit(architecture: Architecture, data: Data) -> None:
    for what, wanted, got in (
        ("classes", architecture.classes, len(data.classes)),
        ("channels", architecture.channels, data.channels),
        ("resolution", architecture.resolution, data.resolution),
    ):
        if wanted != got:
            raise TrainingError(f"{data.name}: {what} must be the architecture's, which has {wanted}, got {got}")


def _identity(
    start: Architecture | Checkpoint, data: Data, recipe: Recipe, *, seed: int, skip_images: int
) -> dict[str, Any]:
    """What must be alike for a state to be gone on from."""
    weights = ""
    if isinstance(start, Checkpoint):
        digest = hashlib.blake2b(digest_size=8)
        for name, tensor in sorted(start.state.items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        weights = digest.hexdigest()
    architecture = start.architecture if isinstance(start, Checkpoint) else start
    return {
        "architecture": architecture.fingerprint,
        "data": data.fingerprint,
        "seed": seed,
        "weights": weights,
        "skipped images": skip_images,
        **recipe.to_dict(),
    }


def _seed(seed: int, purpose: str) -> int:
    digest = hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _silent(what: str, done: int, total: int | None) -> None:
    """Progress that nobody wants to see."""


def _never() -> bool:
    return False

"""What changes from step to step of a training, and how it is kept in a file, so that a killed run goes on from there."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas.average import Average
from nas.checkpoint import Checkpoint, pack, unpack
from nas.data import Data
from nas.errors import CheckpointError
from nas.recipe import Recipe
from searchspace.architecture import Architecture
from searchspace.files import write_atomically
from searchspace.network import Network

STATE_FORMAT = 2


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

    @property
    def quality(self) -> tuple[float, float]:
        """More is better; of equally accurate points the one of less loss."""
        return self.accuracy, -self.loss


@dataclass(eq=False)
class TrainingState:
    """All that changes.

    Attributes:
        network: what is trained.
        optimizer: with its momenta.
        average: of the weights, None without one.
        scaler: of the loss, for fp16.
        losses: of every step; those to come are 0.
        step: how many are done.
        seconds: spent on them.
        curve: points so far.
        best: weights at the best point, None if that is the last one.
    """

    network: Network
    optimizer: torch.optim.Optimizer
    average: Average | None
    scaler: torch.amp.GradScaler
    losses: Tensor
    step: int = 0
    seconds: float = 0.0
    curve: list[Look] = field(default_factory=list)
    best: dict[str, Tensor] | None = None

    @property
    def judged(self) -> Network:
        """The network that counts: the average where there is one."""
        return self.network if self.average is None else self.average.network

    @property
    def best_point(self) -> int:
        """Position of the best point of the curve; of equals the first."""
        return max(range(len(self.curve)), key=lambda index: (self.curve[index].quality, -index))

    def add(self, point: Look) -> None:
        """Add a point, made of the network as it is now, to the curve; weights of the best one are kept."""
        self.curve.append(point)
        if self.best_point == len(self.curve) - 1:
            self.best = None

    def keep_best(self) -> None:
        """Before weights change: keep them, if they are the best so far."""
        if self.best is None and self.curve and self.best_point == len(self.curve) - 1:
            self.best = copied(self.judged)

    def epochs_without_gain(self) -> int:
        """Points since the best one."""
        return len(self.curve) - 1 - self.best_point if self.curve else 0

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write the state, all at once or not at all."""
        content = {
            "format": STATE_FORMAT,
            "identity": dict(identity),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.network.state_dict() if self.average else None,
            "scaler": self.scaler.state_dict(),
            "losses": self.losses,
            "curve": [dataclasses.asdict(point) for point in self.curve],
            "best": self.best,
        }
        write_atomically(path, pack(content))

    def restore(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Go on from a state that `save` wrote.

        Raises:
            CheckpointError: the file is damaged, or of another training.
        """
        content = unpack(path, what="training state")
        if content.get("format") != STATE_FORMAT or not isinstance(content.get("identity"), dict):
            raise CheckpointError(
                f"{path}: a training state of format {STATE_FORMAT} is needed; remove it to start anew"
            )
        for key, value in identity.items():
            if content["identity"].get(key) != value:
                raise CheckpointError(
                    f"{path}: holds another training ({key} was {content['identity'].get(key)}, now {value}); "
                    "give the same settings again, or another place for the run"
                )
        try:
            self.network.load_state_dict(content["network"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.average is not None:
                self.average.network.load_state_dict(content["average"])
            self.scaler.load_state_dict(content["scaler"])
            self.losses.copy_(content["losses"])
            self.curve = [Look(**point) for point in content["curve"]]
            self.best = content["best"]
            self.step, self.seconds = content["step"], content["seconds"]
            steps = len(self.losses)
            if not 0 < self.step <= steps or (self.step == steps and not self.curve):
                raise ValueError(f"step {self.step} of {steps}")
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{path}: the training state is damaged; remove it to start anew") from error


def copied(network: Network) -> dict[str, Tensor]:
    """The network's tensors, by name, in memory of their own on the CPU."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}


def training_identity(
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

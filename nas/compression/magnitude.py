"""Pruning by magnitude: how much each layer can spare, and zeros that stay zero while the rest is retrained."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.checkpoint import Checkpoint
from nas.errors import CompressionError
from searchspace.architecture import lower
from searchspace.graph import Conv, Linear
from searchspace.network import Network

FEWEST_WEIGHTS = 256  # a layer of fewer is left alone: tables would take what is saved
LEVELS = (
    1.0,
    0.8,
    0.65,
    0.5,
    0.4,
    0.3,
    0.2,
    0.12,
    0.08,
    0.05,
    0.03,
)  # densities that a scan tries, of one layer at a time


@dataclass(frozen=True)
class Layer:
    """A layer whose weights may be pruned and shared: its tensor's name, whether it is linear, how many weights."""

    name: str
    linear: bool
    weights: int


def layers(checkpoint: Checkpoint) -> tuple[Layer, ...]:
    """The convolutions and linear layers worth it, in order."""
    found = []
    for op in lower(checkpoint.architecture).ops:
        if isinstance(op, Conv | Linear):
            name = f"{op.name}.weight"
            count = checkpoint.state[name].numel()
            if count >= FEWEST_WEIGHTS:
                found.append(Layer(name, isinstance(op, Linear), count))
    return tuple(found)


def mask(weights: Tensor, density: float) -> Tensor:
    """Which weights stay: the share `density` of largest magnitude (at least one), True or False in the tensor's shape."""
    keep = max(1, round(density * weights.numel()))
    order = weights.abs().flatten().argsort(descending=True, stable=True)
    kept = torch.zeros(weights.numel(), dtype=torch.bool)
    kept[order[:keep].cpu()] = True
    return kept.view(weights.shape)


def masks(checkpoint: Checkpoint, densities: Mapping[str, float]) -> dict[str, Tensor]:
    """A mask for each layer named in `densities`."""
    return {name: mask(checkpoint.state[name], density) for name, density in densities.items()}


@dataclass(frozen=True, eq=False)
class Pruned:
    """Keeps pruned weights at zero while training (see `nas.training.Constraint`)."""

    masks: Mapping[str, Tensor]

    @property
    def identity(self) -> str:
        """Of the masks."""
        digest = hashlib.blake2b(digest_size=8)
        for name, kept in sorted(self.masks.items()):
            digest.update(name.encode() + kept.numpy().tobytes())
        return f"pruned {digest.hexdigest()}"

    @torch.no_grad()
    def apply(self, network: Network) -> None:
        """Set what is pruned to zero."""
        parameters = dict(network.named_parameters())
        for name, kept in self.masks.items():
            weights = parameters[name]
            weights.masked_fill_(~kept.to(weights.device), 0.0)


def choose_densities(
    found: tuple[Layer, ...], drops: Mapping[str, Mapping[float, float]], density: float
) -> dict[str, float]:
    """Densities of the layers that together make up `density`, so that none by itself costs more accuracy than need be.

    Args:
        found: the layers.
        drops: for each layer and density level, the accuracy lost when it alone is pruned to it.
        density: share of all their weights that shall stay, in (0, 1].

    Raises:
        CompressionError: `density` is out of range.
    """
    if not 0 < density <= 1:
        raise CompressionError(f"--density must be in (0, 1], got {density:g}")
    wanted = density * sum(layer.weights for layer in found)
    tolerances = sorted({drop for levels in drops.values() for drop in levels.values()})

    def at(tolerance: float) -> dict[str, float]:
        return {
            layer.name: min(
                level for level, drop in drops[layer.name].items() if drop <= max(tolerance, drops[layer.name][1.0])
            )
            for layer in found
        }

    chosen = {layer.name: 1.0 for layer in found}
    for tolerance in tolerances:
        chosen = at(tolerance)
        if _kept(found, chosen) <= wanted:
            break
    return _scaled(found, chosen, wanted)


def _kept(found: tuple[Layer, ...], densities: Mapping[str, float]) -> float:
    return sum(densities[layer.name] * layer.weights for layer in found)


def _scaled(found: tuple[Layer, ...], densities: Mapping[str, float], wanted: float) -> dict[str, float]:
    """The densities times one factor, none above 1, so that together they keep as many weights as wanted."""
    low, high = 0.0, 1.0 / min(densities.values())
    for _ in range(50):
        factor = (low + high) / 2
        scaled = {name: min(1.0, factor * density) for name, density in densities.items()}
        low, high = (low, factor) if _kept(found, scaled) > wanted else (factor, high)
    return {name: min(1.0, low * density) for name, density in densities.items()}

"""The whole of Deep Compression: scan, prune and retrain in rounds, share and fine-tune, write the file.

Every stage leaves a checkpoint in the run's folder, so a killed run goes on from there. Networks learn from the training split,
densities are chosen by the validation split, and the test split is looked at at the end.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from nas.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.compression.container import SUFFIX, TensorSize, load_compressed, save_compressed
from nas.compression.magnitude import LEVELS, Layer, Pruned, choose_densities, layers, mask, masks
from nas.compression.sharing import BITS, Shared, share
from nas.compression.statistics import settled
from nas.data import Data
from nas.distillation import Distillation
from nas.errors import CompressionError
from nas.evaluation import evaluate
from nas.parallel import ALONE
from nas.recipe import Recipe
from nas.run import Run
from nas.teachers import checkpoint_teacher
from nas.training import Constraint, train

SCANNED_IMAGES = 1000  # of the validation split, for the sensitivity scan
TOO_MUCH = 0.15  # accuracy lost, beyond which a layer is not tried at lower densities


class Events(Protocol):
    """What a compression tells whoever watches."""

    def note(self, message: str) -> None: ...
    def progress(self, what: str, done: int, total: int | None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be chosen about a compression.

    Attributes:
        density: share of the weights that stays, in (0, 1]; divided among the layers by the scan.
        layer_densities: layers that are to have a density of their own, by the tensor's name without ``.weight``.
        rounds: of pruning and retraining, each keeping the same share of what was left.
        conv_bits: of a shared weight of a convolution, 1 to 8.
        linear_bits: of a linear layer.
        retrain: recipe after each round.
        tune: recipe of the codebooks.
        distill: share of their loss that the start's softened logits have, in [0, 1]: what is pruned learns from what it was.
        seed: everything random follows from it.
    """

    density: float = 0.33
    layer_densities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rounds: int = 3
    conv_bits: int = 6
    linear_bits: int = 5
    retrain: Recipe
    tune: Recipe
    distill: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value in (("--density", self.density), *self.layer_densities.items()):
            if not 0 < value <= 1:
                raise CompressionError(f"{option} must be in (0, 1], got {value:g}")
        if not 0 <= self.distill <= 1:
            raise CompressionError(f"--distill must be in [0, 1], got {self.distill:g}")
        for option, bits in (("--conv-bits", self.conv_bits), ("--linear-bits", self.linear_bits)):
            if bits not in BITS:
                raise CompressionError(f"{option} must be from {BITS.start} to {BITS.stop - 1}, got {bits}")


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A network that was compressed.

    Attributes:
        path: of its file.
        bytes: the file takes.
        dense_bytes: its tensors took as they were.
        other_bytes: of the file, header and digest.
        sizes: what each tensor takes.
        densities: share of each pruned layer's weights that stayed.
        accuracy_before: on the test split, of the start.
        accuracy_pruned: after pruning and retraining.
        accuracy_after: of what the file holds.
    """

    path: Path
    bytes: int
    dense_bytes: int
    other_bytes: int
    sizes: tuple[TensorSize, ...]
    densities: Mapping[str, float]
    accuracy_before: float
    accuracy_pruned: float
    accuracy_after: float

    @property
    def ratio(self) -> float:
        """How many times smaller."""
        return self.dense_bytes / self.bytes


def compress(
    run: Run, start: Checkpoint, data: Data, *, settings: Settings, events: Events, path: Path | None = None
) -> Compressed:
    """Prune, share, code; judged on the test split.

    Args:
        run: the folder everything goes to.
        start: a trained network.
        data: normalised as for its training.
        settings: what may be chosen.
        events: who watches.
        path: of the file; None: in the run's folder.

    Raises:
        CompressionError: no layer is worth it, or a named one is not there.
    """
    found = compressible(start, settings)
    taught = None
    if settings.distill:
        taught = Distillation(
            checkpoint_teacher(start, name="the start", device=ALONE.device()), weight=settings.distill
        )
    stages = _Stages(run, data, settings, events, taught)
    densities = stages.densities(start, found)
    pruned = stages.pruned(start, densities)
    shared = settled(stages.shared(pruned, found))
    judged = {
        name: evaluate(one.network(), data.test, data).accuracy
        for name, one in (("before", start), ("pruned", pruned), ("after", shared))
    }
    told = {**shared.metrics, "test_accuracy": judged["after"]}
    path = path or run.file(f"network{SUFFIX}")
    sizes = save_compressed(path, dataclasses.replace(shared, metrics=told))
    written = path.stat().st_size
    restored = load_compressed(path)
    return Compressed(
        path=path,
        bytes=written,
        dense_bytes=sum(size.dense_bytes for size in sizes),
        other_bytes=written - sum(size.bytes for size in sizes),
        sizes=sizes,
        densities={name: float((restored.state[name] != 0).float().mean()) for name in densities},
        accuracy_before=judged["before"],
        accuracy_pruned=judged["pruned"],
        accuracy_after=judged["after"],
    )


def compressible(start: Checkpoint, settings: Settings) -> tuple[Layer, ...]:
    """The layers of a network that are pruned and shared; that it can be done as asked is known before anything is begun.

    Raises:
        CompressionError: no layer is worth it, a named one is not there, or the densities cannot be met together.
    """
    found = layers(start)
    if not found:
        raise CompressionError("a network with a layer of at least 256 weights is needed: there is nothing to compress")
    asked = _asked(settings)
    unknown = sorted(asked.keys() - {layer.name for layer in found})
    if unknown:
        known = ", ".join(layer.name.removesuffix(".weight") for layer in found)
        raise CompressionError(
            f"a layer of the network is needed, got {unknown[0].removesuffix('.weight')!r}; known: {known}"
        )
    if free := tuple(layer for layer in found if layer.name not in asked):
        _density_of(free, found, settings)
    return found


def _asked(settings: Settings) -> dict[str, float]:
    """Densities that were asked for, by the tensor's name."""
    return {f"{name}.weight": density for name, density in settings.layer_densities.items()}


def _density_of(free: tuple[Layer, ...], found: tuple[Layer, ...], settings: Settings) -> float:
    """Share of the weights of layers without a density of their own that stays.

    Raises:
        CompressionError: the others leave them too few, or more than there are.
    """
    asked = _asked(settings)
    left = settings.density * sum(layer.weights for layer in found)
    left -= sum(asked[layer.name] * layer.weights for layer in found if layer.name in asked)
    density = left / sum(layer.weights for layer in free)
    if not 0 < density <= 1:
        raise CompressionError(
            f"--density {settings.density:g} cannot be met: the layers that were given one of their own leave "
            f"{density:.2g} for the others"
        )
    return density


@dataclass(frozen=True)
class _Stages:
    run: Run
    data: Data
    settings: Settings
    events: Events
    distillation: Distillation | None = None

    def densities(self, start: Checkpoint, found: tuple[Layer, ...]) -> dict[str, float]:
        """The share of each layer's weights that stays, chosen once for the run."""
        asked = _asked(self.settings)
        free = tuple(layer for layer in found if layer.name not in asked)
        if not free:
            return asked

        def choose() -> dict[str, float]:
            return choose_densities(free, self._drops(start, free), _density_of(free, found, self.settings))

        chosen: dict[str, float] = self.run.once("densities", choose)
        return {**chosen, **asked}

    def pruned(self, start: Checkpoint, densities: Mapping[str, float]) -> Checkpoint:
        """The network after all rounds."""
        network = start
        for number in range(1, self.settings.rounds + 1):
            network = self._trained(
                f"pruned-{number}",
                network,
                lambda before, number=number: Pruned(  # type: ignore[misc]
                    masks(before, {name: one ** (number / self.settings.rounds) for name, one in densities.items()})
                ),
                self.settings.retrain,
                what=f"retraining, round {number} of {self.settings.rounds}",
            )
        return network

    def shared(self, pruned: Checkpoint, found: tuple[Layer, ...]) -> Checkpoint:
        """The network with shared weights, its codebooks fine-tuned."""
        bits = {"conv_bits": self.settings.conv_bits, "linear_bits": self.settings.linear_bits}

        def constrain(before: Checkpoint) -> Shared:
            return share(
                before, found, **bits, on_layer=lambda done: self.events.progress("sharing weights", done, len(found))
            )

        return self._trained("shared", pruned, constrain, self.settings.tune, what="tuning codebooks")

    def _trained(
        self,
        name: str,
        before: Checkpoint,
        constrain: Callable[[Checkpoint], Pruned | Shared],
        recipe: Recipe,
        *,
        what: str,
    ) -> Checkpoint:
        """A stage's network: trained under a constraint, once for the run."""
        path = self.run.file(f"{name}.pt")
        if path.exists():
            return load_checkpoint(path)
        constraint: Constraint = constrain(before)
        state_file = path.with_suffix(".state")
        result = train(
            before,
            self.data,
            recipe,
            seed=self.settings.seed,
            state_file=state_file,
            distillation=self.distillation,
            constraint=constraint,
            on_progress=lambda said, done, total: self.events.progress(f"{what}: {said}", done, total),
        )
        trained = result.checkpoint.divided_as(before)
        save_checkpoint(path, trained)
        state_file.unlink(missing_ok=True)
        self.events.note(f"{what}: validation accuracy {result.accuracy:.2%}")
        return trained

    def _drops(self, start: Checkpoint, found: tuple[Layer, ...]) -> dict[str, dict[float, float]]:
        """Accuracy lost on some validation images when one layer alone is pruned, by layer and density."""
        few = self.data.validation.take(slice(SCANNED_IMAGES))
        network = start.network()
        parameters = dict(network.named_parameters())
        base = evaluate(network, few, self.data).accuracy
        drops: dict[str, dict[float, float]] = {}
        for index, layer in enumerate(found):
            self.events.progress("looking how much each layer can spare", index, len(found))
            weights = parameters[layer.name]
            kept = weights.detach().clone()
            drops[layer.name] = {1.0: 0.0}
            lost = 0.0
            for level in LEVELS[1:]:
                if lost <= TOO_MUCH:
                    with torch.no_grad():
                        weights.copy_(kept * mask(kept, level))
                    lost = base - evaluate(network, few, self.data).accuracy
                drops[layer.name][level] = lost if lost <= TOO_MUCH else 1.0
            with torch.no_grad():
                weights.copy_(kept)
        return drops

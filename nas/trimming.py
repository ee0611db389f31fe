"""Narrowing a trained network: which weights stay, and what the removed channels contributed on average.

A removed channel is replaced by its mean: what it added to a convolution or linear layer after it goes into that layer's running
mean or bias, so no trainable weight is touched. For a channel that is constant over positions and images (a dead one that has
passed a normalisation, say) the network computes exactly what it did, with two exceptions: a window that reaches into the
padding sees less of the constant at the border (there the mean over all positions is taken), and attention's projections
have neither bias nor normalisation that could take a constant other than 0.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from nas.checkpoint import Checkpoint
from searchspace import graph
from searchspace.architecture import lower
from searchspace.graph import Graph
from searchspace.network import Network
from searchspace.width import drop_block, set_widths, widths

Kept = Mapping[str, Collection[int]]
"""Units that stay of each width that is narrowed, by its name."""


@torch.inference_mode()
def input_means(network: Network, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Mean of each input channel of every convolution and linear layer, by the layer's name; float64.

    Args:
        network: in evaluation mode.
        batches: images (N, C, H, W), normalised; at least one batch.
    """
    sums: dict[str, Tensor] = {}
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def add(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                mean = inputs[0].double().flatten(2).mean(2) if inputs[0].ndim > 2 else inputs[0].double()
                sums[name] = sums.get(name, torch.zeros(())) + mean.sum(0)

            handles.append(module.register_forward_pre_hook(add))
    images = 0
    for batch in batches:
        network(batch)
        images += len(batch)
    for handle in handles:
        handle.remove()
    return {name: total.cpu() / images for name, total in sums.items()}


def trim(checkpoint: Checkpoint, kept: Kept, *, means: Mapping[str, Tensor]) -> Checkpoint:
    """The network with only some units of some widths.

    Args:
        checkpoint: the network.
        kept: names of widths of its architecture, and the units of each that stay; at least one each.
        means: of this network, from `input_means`.

    Returns:
        The narrower network; its metrics and recipe are empty, since it was not trained as it is.
    """
    architecture = checkpoint.architecture
    known = {width.name: width for width in widths(architecture)}
    narrowed = set_widths(architecture, [(known[name], len(set(units))) for name, units in kept.items()])
    removed: dict[str, set[int]] = {}
    for name, units in kept.items():
        for place in known[name].places:
            gone = (row for unit, row in enumerate(place.units) if unit not in units)
            removed.setdefault(place.op, set()).update(channel for row in gone for channel in row)
    slicer = _Slicer(lower(architecture), lower(narrowed), checkpoint.state, removed, means)
    return dataclasses.replace(checkpoint, architecture=narrowed, state=slicer.state(), metrics={}, recipe={})


def without_block(checkpoint: Checkpoint, index: int) -> Checkpoint:
    """The network without one of its residual blocks (see `searchspace.width.droppable`)."""
    architecture = drop_block(checkpoint.architecture, index)
    state = {}
    for name, tensor in checkpoint.state.items():
        part, place, rest = name.split(".", 2)
        if part == "blocks" and int(place) == index:
            continue
        later = part == "blocks" and int(place) > index
        state[f"{part}.{int(place) - 1}.{rest}" if later else name] = tensor
    return dataclasses.replace(checkpoint, architecture=architecture, state=state, metrics={}, recipe={})


class _Slicer:
    """Takes the tensors of a narrower graph out of a wider one's, op by op."""

    def __init__(
        self,
        wide: Graph,
        narrow: Graph,
        state: Mapping[str, Tensor],
        removed: Mapping[str, set[int]],
        means: Mapping[str, Tensor],
    ) -> None:
        self.wide, self.narrow, self.old, self.removed, self.means = wide, narrow, state, removed, means
        self.new: dict[str, Tensor] = {}
        self.stays: list[Tensor] = []  # of each op's channels, whether it stays

    def state(self) -> dict[str, Tensor]:
        """The narrower network's tensors."""
        for index, op in enumerate(self.wide.ops):
            self.stays.append(self._staying(op))
            stays = self.stays[index]
            match op:
                case graph.Conv():
                    self._convolution(index, op, stays)
                case graph.Linear():
                    self._linear(op, stays)
                case graph.Normalize() | graph.LayerScale():
                    self._vectors(op.name, stays)
        return {name: tensor.clone() for name, tensor in self.new.items()}

    def _staying(self, op: graph.Op) -> Tensor:
        """Which of an op's channels stay: its own decision, else that of its inputs."""
        match op:
            case graph.Concat():
                return torch.cat([self.stays[source] for source in op.inputs])
            case graph.Input() | graph.Linear() | graph.Attention() | graph.Conv(groups=1):
                stays = torch.ones(op.shape.channels, dtype=torch.bool)
                stays[list(self.removed.get(op.name, ()))] = False
                return stays
        return self.stays[op.inputs[0]]

    def _convolution(self, index: int, op: graph.Conv, stays: Tensor) -> None:
        read = self.stays[op.inputs[0]]
        weight = self.old[f"{op.name}.weight"][stays]
        if op.depthwise:
            self.new[f"{op.name}.weight"] = weight
        else:
            self.new[f"{op.name}.weight"] = weight[:, read] * self._query_scale(index)
        self._vectors(op.name, stays, without=("weight",))
        self._vectors(f"{op.name}.norm", stays)
        if op.depthwise or bool(read.all()):
            return
        reached = _reach(op, self.wide.ops[op.inputs[0]].shape)
        lost = ((weight[:, ~read].double() * reached).sum((2, 3)) @ self.means[op.name][~read]).to(weight.dtype)
        if op.norm:
            self.new[f"{op.name}.norm.running_mean"] -= lost
        elif op.bias:
            self.new[f"{op.name}.bias"] += lost

    def _linear(self, op: graph.Linear, stays: Tensor) -> None:
        read = self.stays[op.inputs[0]]
        weight = self.old[f"{op.name}.weight"][stays]
        lost = (weight[:, ~read].double() @ self.means[op.name][~read]).to(weight.dtype)
        self.new[f"{op.name}.weight"] = weight[:, read]
        self.new[f"{op.name}.bias"] = self.old[f"{op.name}.bias"][stays] + lost

    def _vectors(self, name: str, stays: Tensor, *, without: tuple[str, ...] = ()) -> None:
        """The vectors called `name`.… (and a normalisation's counter)."""
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            tensor = self.old.get(f"{name}.{key}")
            if tensor is not None and key not in without:
                self.new[f"{name}.{key}"] = tensor[stays] if tensor.ndim else tensor

    def _query_scale(self, index: int) -> float:
        """Attention divides scores by the root of the key dimension: queries make up for its change."""
        for before, after in zip(self.wide.ops, self.narrow.ops, strict=True):
            if isinstance(before, graph.Attention) and isinstance(after, graph.Attention) and before.inputs[0] == index:
                return float((after.key_dim / before.key_dim) ** 0.5)
        return 1.0


def _reach(op: graph.Conv, source: graph.Shape) -> Tensor:
    """For each weight of a window (k, k) the share of output positions for which it lies on the map, not in the padding."""

    def along(size: int, outputs: int) -> Tensor:
        position = torch.arange(outputs)[:, None] * op.stride + torch.arange(op.kernel) - op.padding
        return ((position >= 0) & (position < size)).double().mean(0)

    return torch.outer(along(source.height, op.shape.height), along(source.width, op.shape.width))

"""Torch-Pruning's pruners on a checkpoint of ours: their choice of channels, our files.

Torch-Pruning traces a plain torch module, so one is built with the checkpoint's weights; what it leaves of each layer says the
widths of the pruned `Architecture`. Its pruners are used as its examples use them: group importance, pruning over all layers
at once, channel counts rounded to 8, the classifier left alone.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
import torch_pruning
from torch import Tensor, nn

from nas.checkpoint import Checkpoint
from searchspace import graph
from searchspace.architecture import Architecture, lower
from searchspace.width import set_widths, widths

PRUNERS = ("torch-pruning group norm", "torch-pruning taylor")
ROUND_TO = 8
GRID = 48  # pruning ratios that are tried, evenly spaced below 0.96

Batch = tuple[Tensor, Tensor]


class Plain(nn.Module):
    """The network as convolutions, normalisations and linear layers that Torch-Pruning knows."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.ops = lower(checkpoint.architecture).ops
        self.layers = nn.ModuleDict()
        for op in self.ops:
            match op:
                case graph.Conv():
                    self.layers[_key(op.name)] = nn.Conv2d(
                        op.cin,
                        op.shape.channels,
                        op.kernel,
                        stride=op.stride,
                        padding=op.padding,
                        groups=op.groups,
                        bias=op.bias,
                    )
                    if op.norm:
                        self.layers[_key(f"{op.name}.norm")] = nn.BatchNorm2d(op.shape.channels, eps=op.norm.epsilon)
                case graph.Linear():
                    weight = checkpoint.state[f"{op.name}.weight"]
                    self.layers[_key(op.name)] = nn.Linear(weight.shape[1], weight.shape[0])
        self.load_state_dict({f"layers.{_key(name, 1)}": tensor for name, tensor in checkpoint.state.items()})

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        values = [images]
        for op in self.ops[1:]:
            x = values[op.inputs[0]]
            match op:
                case graph.Conv():
                    x = self.layers[_key(op.name)](x)
                    values.append(self.layers[_key(f"{op.name}.norm")](x) if op.norm else x)
                case graph.Linear():
                    values.append(self.layers[_key(op.name)](x))
                case graph.Activation(function="relu"):
                    values.append(F.relu(x))
                case graph.Add():
                    values.append(x + values[op.inputs[1]])
                case graph.GlobalPool():
                    values.append(x.mean((2, 3), keepdim=True))
                case graph.Flatten():
                    values.append(x.flatten(1))
                case _:
                    raise TypeError(f"no such layer here yet: {op!r}")
        return values[-1]

    def weights(self) -> dict[str, Tensor]:
        """Its tensors under the names that a checkpoint gives them."""
        state = self.state_dict()
        return {name.removeprefix("layers.").replace("/", "."): tensor.contiguous() for name, tensor in state.items()}


def _key(name: str, own: int = 0) -> str:
    """A layer's name as torch's containers allow it; the last `own` parts stay apart."""
    *parts, last = name.rsplit(".", own) if own else (name, "")
    return ".".join([part.replace(".", "/") for part in parts] + ([last] if own else []))


def pruned(checkpoint: Checkpoint, pruner: str, batches: Sequence[Batch]) -> Iterator[Checkpoint]:
    """What a pruner makes of a network at ever larger pruning ratios; equal architectures once.

    Args:
        checkpoint: the network.
        pruner: one of `PRUNERS`.
        batches: normalised images and labels, for the gradients that Taylor importance needs.
    """
    gradients = _gradients(checkpoint, batches) if pruner.endswith("taylor") else None
    seen = {checkpoint.architecture.fingerprint}
    for step in range(1, GRID):
        model = Plain(checkpoint)
        if gradients is not None:
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
        _prune(model, pruner, 0.96 * step / GRID, checkpoint.architecture)
        result = _as_checkpoint(checkpoint, model)
        if result.architecture.fingerprint not in seen:
            seen.add(result.architecture.fingerprint)
            yield result


def _gradients(checkpoint: Checkpoint, batches: Iterable[Batch]) -> list[Tensor]:
    model = Plain(checkpoint).eval()
    for images, labels in batches:
        F.cross_entropy(model(images), labels).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def _prune(model: Plain, pruner: str, ratio: float, architecture: Architecture) -> None:
    taylor = pruner.endswith("taylor")
    importance = (
        torch_pruning.importance.GroupTaylorImportance()
        if taylor
        else torch_pruning.importance.GroupMagnitudeImportance(p=2)
    )
    kind = torch_pruning.pruner.MetaPruner if taylor else torch_pruning.pruner.GroupNormPruner
    kind(
        model,
        torch.zeros(1, architecture.channels, architecture.resolution, architecture.resolution),
        importance=importance,
        global_pruning=True,
        pruning_ratio=ratio,
        round_to=ROUND_TO,
        ignored_layers=[module for module in model.modules() if isinstance(module, nn.Linear)],
    ).step()


def _as_checkpoint(start: Checkpoint, model: Plain) -> Checkpoint:
    state = model.weights()
    counts = [(width, len(state[f"{width.places[0].op}.weight"])) for width in widths(start.architecture)]
    return Checkpoint(set_widths(start.architecture, counts), state, start.classes, start.data)

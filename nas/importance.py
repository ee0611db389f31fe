"""How much each unit of a width matters, so that the least important ones go.

`magnitude` is NetAdapt's criterion (arXiv 1804.03230): the L2 norm of the filters, here as they are deployed, since the scale of
weights before a normalisation means nothing. `taylor` is the squared first-order change of the loss if a unit's output were 0
(Molchanov et al., arXiv 1906.10771), averaged over batches; signed changes of layers that lose the unit together are added
before they are squared.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.checkpoint import Checkpoint
from searchspace import graph
from searchspace.architecture import lower
from searchspace.graph import Graph
from searchspace.width import Width, widths

Importance = Mapping[str, Tensor]
"""A figure for each unit of each width, by the width's name; only their order within a width means anything."""


def magnitude(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Squared L2 norm of the deployed filters of each unit."""
    lowered = lower(checkpoint.architecture)
    rows = {}
    for name, (op, transposed) in _makers(lowered).items():
        weight = checkpoint.state[f"{op.name}.weight"]
        if isinstance(op, graph.Conv) and op.norm:
            deviation = (checkpoint.state[f"{op.name}.norm.running_var"] + op.norm.epsilon).sqrt()
            weight = weight * (checkpoint.state[f"{op.name}.norm.weight"] / deviation).view(-1, 1, 1, 1)
        rows[name] = _per_channel(weight.square(), transposed)
    return {width.name: _per_unit(width, rows) for width in widths(checkpoint.architecture)}


def taylor(checkpoint: Checkpoint, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Squared first-order change of the loss without each unit, averaged over batches.

    Args:
        checkpoint: the network.
        batches: normalised images (N, C, H, W) and labels (N,); at least one batch.
    """
    lowered = lower(checkpoint.architecture)
    found = widths(checkpoint.architecture)
    network = checkpoint.network()
    parameters = dict(network.named_parameters())
    total = {width.name: torch.zeros(width.count) for width in found}
    for images, labels in batches:
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        rows = {}
        for name, (op, transposed) in _makers(lowered).items():
            vectors = [
                f"{op.name}.norm.weight",
                f"{op.name}.norm.bias",
            ]  # product with their gradients: the channel's own
            normalised = isinstance(op, graph.Conv) and op.norm is not None and not transposed
            keys = vectors if normalised else [f"{op.name}.weight", *([] if transposed else [f"{op.name}.bias"])]
            rows[name] = sum(
                (_per_channel(_change(parameters[key]), transposed) for key in keys if key in parameters),
                torch.zeros(()),
            )
        for width in found:
            total[width.name] += _per_unit(width, rows).square()
    return total


def most_important(importance: Tensor, count: int) -> list[int]:
    """The `count` most important units, ascending; of equals the first."""
    order = torch.argsort(importance, descending=True, stable=True)
    return sorted(order[:count].tolist())


def _makers(lowered: Graph) -> dict[str, tuple[graph.Conv | graph.Linear, bool]]:
    """For each op whose channels tell about a width, the layer whose weights are looked at.

    That is the op itself, by the rows of its weights; for attention it is the projection after it, by the columns. A
    squeeze-excite's gate is left out: what it scales tells.
    """
    gates = {_gate(lowered, op) for op in lowered.ops if isinstance(op, graph.Scale)}
    makers: dict[str, tuple[graph.Conv | graph.Linear, bool]] = {}
    for op in lowered.ops:
        if isinstance(op, graph.Conv | graph.Linear) and op.name not in gates:
            makers[op.name] = op, False
            before = lowered.ops[op.inputs[0]]
            if isinstance(before, graph.Attention):
                makers[before.name] = op, True
    return makers


def _gate(lowered: Graph, scale: graph.Op) -> str:
    """Name of the convolution that makes the factors of a product."""
    op = lowered.ops[scale.inputs[1]]
    while not isinstance(op, graph.Conv):
        op = lowered.ops[op.inputs[0]]
    return op.name


def _per_channel(weight: Tensor, transposed: bool) -> Tensor:
    """Sum over all but the output channels, or over all but the input channels."""
    rows = weight.transpose(0, 1) if transposed else weight
    return rows.reshape(len(rows), -1).sum(1)


def _per_unit(width: Width, rows: Mapping[str, Tensor]) -> Tensor:
    """Sum over what a unit has in each place; a width that passes through attention is told by its projection alone."""
    places = [place for place in width.places if place.op.endswith(".attention")] or width.places
    figures = [rows[place.op][torch.tensor(place.units)].sum(1) for place in places if place.op in rows]
    return torch.stack(figures).sum(0)


def _change(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.detach() * parameter.grad

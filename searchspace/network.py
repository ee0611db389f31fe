"""The torch module of an architecture, built from its graph: what is trained.

Parameters are named after the ops (``blocks.3.expand.weight``, ``blocks.3.expand.norm.running_mean``), so a state dict reads
like the architecture and `searchspace.onnx_graph` finds every tensor by name.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from searchspace import graph
from searchspace.architecture import Architecture, lower

Step = Callable[..., Tensor]
CLASSIFIER = "head.classifier"

_ACTIVATIONS: dict[str, Step] = {
    "relu": F.relu_,  # in place: its input is a convolution's or a normalisation's output that nobody else reads
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
}


class Network(nn.Module):
    """Images (N, channels, resolution, resolution), float, to logits (N, classes).

    Convolutions start from He's normal initialisation: over the outputs that a weight reaches where a normalisation follows
    (as timm and the MobileNets' releases do), over the inputs that it reads where none does (so that SqueezeNet keeps its
    activations' scale). Attention's projections start from Xavier's uniform one (as in timm), the classifier from N(0, 0.01),
    biases from 0. Seed torch's generator for a repeatable start.

    `drop_path`: share of images for which the last residual branch is left out while training; it rises linearly to that from the
    first on (stochastic depth, Huang et al., arXiv 1603.09382). It has no tensors and does nothing in evaluation.
    """

    def __init__(self, architecture: Architecture, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.architecture = architecture
        lowered = lower(architecture)
        sums = [op.name for op in lowered.ops if isinstance(op, graph.Add)] if drop_path else []
        self._drop_rates = {name: drop_path * (index + 1) / len(sums) for index, name in enumerate(sums)}
        last_use = lowered.last_uses()
        self._program: list[tuple[Step, tuple[int, ...], tuple[int, ...]]] = []
        for index, op in enumerate(lowered.ops[1:], start=1):
            freed = tuple({source for source in op.inputs if last_use[source] == index})
            self._program.append((self._step(op), op.inputs, freed))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        values: list[Tensor | None] = [images]
        for step, sources, freed in self._program:
            values.append(step(*(values[source] for source in sources)))
            for source in freed:
                values[source] = None
        result = values[-1]
        assert result is not None
        return result

    def _step(self, op: graph.Op) -> Step:
        """What computes `op`; a module (whatever has parameters, or a training mode) is registered under the op's name."""
        module = _module(op)
        if module is not None:
            _register(self, op.name, module)
            return module
        match op:
            case graph.Activation():
                return _ACTIVATIONS[op.function]
            case graph.Attention():
                return lambda query, key, value: _attend(op, query, key, value)
            case graph.Pool():
                return lambda x: _pool(op, x)
            case graph.Add() if op.name in self._drop_rates:
                return lambda branch, shortcut: shortcut + self._kept(branch, self._drop_rates[op.name])
            case graph.Add() | graph.Scale():
                return torch.add if isinstance(op, graph.Add) else torch.mul
            case graph.Concat():
                return lambda *parts: torch.cat(parts, dim=1)
            case graph.GlobalPool():
                return lambda x: x.mean((2, 3), keepdim=True)
            case graph.Flatten():
                return lambda x: x.flatten(1)
        raise TypeError(f"no torch step for op {op!r}")

    def _kept(self, branch: Tensor, drop_rate: float) -> Tensor:
        """The branch, while training without that share of the images; what stays is scaled up to keep the mean."""
        if not self.training:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, 1, device=branch.device) >= drop_rate
        return branch * (keep / (1 - drop_rate)).to(branch.dtype)


class Convolution(nn.Conv2d):
    """Convolution with the batch normalisation that follows it, if any, as its child `norm`."""

    def __init__(self, op: graph.Conv) -> None:
        super().__init__(
            op.cin,
            op.shape.channels,
            op.kernel,
            stride=op.stride,
            padding=op.padding,
            groups=op.groups,
            bias=op.bias,
        )
        _initialise(self.weight, op)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.norm = _batch_norm(op.shape.channels, op.norm) if op.norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H', W')."""
        x = super().forward(x)
        return x if self.norm is None else self.norm(x)


def _initialise(weight: Tensor, op: graph.Conv) -> None:
    """Draw a convolution's weight, if it has memory; what stands around it tells its part (see `Network`)."""
    if weight.is_meta:  # to draw such a one torch loads its compiler
        return
    if op.name == CLASSIFIER:
        nn.init.normal_(weight, std=0.01)
    elif op.norm is None and not op.bias:
        nn.init.xavier_uniform_(weight)
    else:
        fan = (op.shape.channels if op.norm else op.cin) * op.kernel**2 // op.groups
        nn.init.normal_(weight, std=(2.0 / fan) ** 0.5)


class LayerScale(nn.Module):
    """Trainable factor per channel."""

    def __init__(self, channels: int, initial: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), each channel times its factor."""
        return x * self.weight.view(-1, 1, 1)


def _module(op: graph.Op) -> nn.Module | None:
    match op:
        case graph.Conv():
            return Convolution(op)
        case graph.Normalize():
            return _batch_norm(op.shape.channels, op.norm)
        case graph.LayerScale():
            return LayerScale(op.shape.channels, op.initial)
        case graph.Dropout():
            return nn.Dropout(op.rate)
        case graph.Linear():
            linear = nn.Linear(op.cin, op.shape.channels)
            if not linear.weight.is_meta:
                nn.init.normal_(linear.weight, std=0.01)
                nn.init.zeros_(linear.bias)
            return linear
    return None


def _batch_norm(channels: int, norm: graph.Norm) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=norm.epsilon, momentum=norm.momentum)


def _register(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` into `root` under its dotted name, making the plain modules on the way."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    root.add_module(last, module)


def _pool(op: graph.Pool, x: Tensor) -> Tensor:
    function: Step = F.max_pool2d if op.function == "max" else F.avg_pool2d
    return function(x, op.kernel, op.stride, op.padding, ceil_mode=op.ceil)


def _attend(op: graph.Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over positions: heads are slices of the channels, tokens are pixels."""

    def tokens(x: Tensor, heads: int, size: int) -> Tensor:
        return x.reshape(x.shape[0], heads, size, -1).transpose(2, 3)  # (N, heads, tokens, size)

    q = tokens(query, op.heads, op.key_dim)
    k = tokens(key, op.kv_heads, op.key_dim).expand(-1, op.heads, -1, -1)
    v = tokens(value, op.kv_heads, op.value_dim).expand(-1, op.heads, -1, -1)
    attended = F.scaled_dot_product_attention(q, k, v)  # (N, heads, tokens, value_dim)
    return attended.transpose(2, 3).reshape(query.shape[0], -1, *query.shape[2:])

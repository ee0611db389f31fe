"""The `torch` format: a folder with one readable `model.py` of plain torch modules, and the weights; torch alone runs it."""

import inspect
import io
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.checkpoint import Checkpoint
from nas.shipping import plain
from searchspace import blocks as kinds
from searchspace.architecture import Architecture
from searchspace.blocks import Block, Head
from searchspace.graph import Shape

MODEL, WEIGHTS = "model.py", "weights.pt"
_SPECIAL = re.compile(r"[^\w .:×-]")  # must not end the text that a name stands in

_HEADER = '''"""{title}

    from model import load, prepare

    logits = load()(prepare(pixels))  # pixels: uint8, (N, {channels}, {side}, {side})

Plain torch; the weights are in {weights}, beside this file.
"""

from pathlib import Path

import torch
{functional}from torch import Tensor, nn

CLASSES = {classes}
RESOLUTION = {side}
CHANNELS = {channels}
MEAN = {mean}  # of pixels / 255
STD = {std}
'''

_FOOTER = '''

class Network(nn.Module):
    """Normalised images (N, CHANNELS, RESOLUTION, RESOLUTION) to logits (N, {outputs})."""

    def __init__(self) -> None:
        super().__init__()
        eps = {eps}  # of the batch normalisations{without}
        self.blocks = nn.Sequential(
{rows}
        )
        self.head = {head}

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(images))


def prepare(pixels: Tensor) -> Tensor:
    """Pixels, uint8 (N, CHANNELS, RESOLUTION, RESOLUTION), as the network takes them."""
    mean, std = torch.tensor(MEAN).view(1, -1, 1, 1), torch.tensor(STD).view(1, -1, 1, 1)
    return (pixels.float() / 255 - mean) / std


def load(weights: str | Path | None = None) -> Network:
    """The network with its weights, ready to use."""
    network = Network()
    network.load_state_dict(torch.load(weights or Path(__file__).with_name("{weights}"), weights_only=True))
    return network.eval()
'''


def weights(checkpoint: Checkpoint) -> bytes:
    """The checkpoint's tensors as `weights.pt` holds them."""
    buffer = io.BytesIO()
    torch.save(dict(checkpoint.state), buffer)
    return buffer.getvalue()


def run(source: str, state: bytes, images: Tensor) -> NDArray[np.float32]:
    """Logits of what `model_source` wrote."""
    with torch.inference_mode():
        logits: NDArray[np.float32] = _loaded(source, state)(images).numpy()
    return logits


def plain_network(checkpoint: Checkpoint) -> nn.Module:
    """The network as `model.py` defines it, ready to use."""
    return _loaded(model_source(checkpoint), weights(checkpoint))


def _loaded(source: str, state: bytes) -> nn.Module:
    namespace: dict[str, Any] = {"__name__": "model", "__file__": MODEL}
    exec(compile(source, MODEL, "exec"), namespace)  # our own text
    network: nn.Module = namespace["load"](io.BytesIO(state))
    return network


def model_source(checkpoint: Checkpoint) -> str:
    """The text of `model.py`: the classes that the network needs, then the network as a table of its blocks."""
    architecture = checkpoint.architecture
    norm = architecture.norm
    rows = [_block(block, shape) for block, shape in zip(architecture.blocks, architecture.shapes, strict=False)]
    head = _head(architecture.head, architecture.shapes[-1], architecture)
    body = "\n\n\n".join(inspect.getsource(part).rstrip() for part in _classes([*rows, head]))
    activations = _activations([*rows, head], squeeze_excite="class SqueezeExcite" in body)
    functional = "import torch.nn.functional as F\n" if "F." in body + activations else ""
    title = _SPECIAL.sub(" ", architecture.name) or f"Network {architecture.fingerprint}"
    judged = ", accuracy {:.1%} on the {} split".format(*checkpoint.judged) if checkpoint.judged else ""
    about = _HEADER.format(
        title=f"{title}: {architecture.resolution} px{judged}",
        channels=architecture.channels,
        side=architecture.resolution,
        weights=WEIGHTS,
        functional=functional,
        classes=list(checkpoint.classes) or f"None  # {architecture.classes}, whose names are not known",
        mean=checkpoint.data.mean,
        std=checkpoint.data.std,
    )
    network = _FOOTER.format(
        outputs=architecture.classes,
        eps=None if norm is None else norm.epsilon,
        without=" (there are none)" if norm is None else "",
        rows="\n".join(f"            {row}," for row in rows),
        head=head,
        weights=WEIGHTS,
    )
    return f"{about}\n{activations}\n\n\n{body}\n{network}"


def _block(block: Block, shape: Shape) -> str:
    """The call that makes a block for an input of `shape`."""
    cin = shape.channels
    match block:
        case kinds.Conv():
            extra = {} if block.padding is None else {"padding": block.padding}
            return _call(
                plain.Conv, cin, block.cout, block.kernel, stride=block.stride, **extra, eps=_EPS, act=block.activation
            )
        case kinds.Separable():
            common = {"kernel": block.kernel, "stride": block.stride, "eps": _EPS, "act": block.activation}
            return _call(plain.Separable, cin, block.cout, **common)
        case kinds.UIB():
            return _call(
                plain.UIB,
                cin,
                block.cout,
                hidden=block.hidden,
                dw_start=block.dw_start,
                dw_mid=block.dw_mid,
                stride=block.stride,
                **_squeeze_excite(block),
                scaled=block.layer_scale is not None,
                residual=block.residual,
                eps=_EPS,
                act=block.activation,
            )
        case kinds.FusedBottleneck():
            return _call(
                plain.FusedBottleneck,
                cin,
                block.cout,
                hidden=block.hidden,
                kernel=block.kernel,
                stride=block.stride,
                **_squeeze_excite(block),
                residual=block.residual,
                eps=_EPS,
                act=block.activation,
            )
        case kinds.Fire():
            widths = {"squeeze": block.squeeze, "one": block.expand1x1, "three": block.expand3x3}
            return _call(plain.Fire, cin, **widths, bypass=block.bypass, eps=_EPS, act=block.activation)
        case kinds.MultiQueryAttention():
            return _call(
                plain.Attention,
                cin,
                heads=block.heads,
                kv_heads=1 if block.shared else block.heads,
                key_dim=block.key_dim,
                value_dim=block.value_dim,
                kv_stride=block.kv_stride,
                scaled=block.layer_scale is not None,
                residual=block.residual,
                eps=_EPS,
            )
        case kinds.Pool():
            name = "nn.MaxPool2d" if block.function == "max" else "nn.AvgPool2d"
            return f"{name}({block.kernel}, {block.stride}, {block.padding}, ceil_mode={block.ceil})"
    raise TypeError(f"no plain module for block {block!r}")


def _head(head: Head, shape: Shape, architecture: Architecture) -> str:
    sizes = (shape.channels, architecture.classes)
    match head:
        case kinds.ClassicHead():
            return _call(plain.ClassicHead, *sizes, dropout=head.dropout)
        case kinds.MobileNetHead():
            eps = _EPS if head.norm and architecture.norm is not None else None
            return _call(
                plain.MobileNetHead, *sizes, hidden=head.hidden, dropout=head.dropout, eps=eps, act=head.activation
            )
        case kinds.NinHead():
            return _call(plain.NinHead, *sizes, dropout=head.dropout, act=head.activation)
    raise TypeError(f"no plain module for head {head!r}")


class _Name(str):
    """Text that stands for itself in a call, not for a string."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


_EPS = _Name("eps")


def _squeeze_excite(block: "kinds.UIB | kinds.FusedBottleneck") -> dict[str, Any]:
    return {"se": block.se, "gate": block.se_gate} if block.se else {}


def _call(made: type[nn.Module], *positional: Any, **named: Any) -> str:
    """The text of a call, without arguments that say what the parameter's default says anyway."""
    defaults = {name: one.default for name, one in inspect.signature(made).parameters.items()}
    parts = [repr(value) for value in positional]
    parts += [f"{name}={_text(value)}" for name, value in named.items() if value != defaults[name]]
    return f"{made.__name__}({', '.join(parts)})"


def _text(value: object) -> str:
    return f'"{value}"' if type(value) is str else repr(value)


def _classes(calls: Iterable[str]) -> list[type[nn.Module]]:
    """The classes that calls make, and those that these are made of, in the order of `plain`."""
    everything = {
        name: made for name, made in vars(plain).items() if isinstance(made, type) and made.__module__ == plain.__name__
    }
    wanted = {call.partition("(")[0] for call in calls}
    while True:
        text = "\n".join(inspect.getsource(everything[name]) for name in wanted if name in everything)
        more = {name for name in everything if f"{name}(" in text and name not in wanted}
        if not more:
            return [made for name, made in everything.items() if name in wanted]
        wanted |= more


def _activations(calls: Iterable[str], *, squeeze_excite: bool) -> str:
    """The table of activations, with those alone that occur."""
    text = "\n".join(calls)
    used = {name for name in plain.ACTIVATIONS if f'"{name}"' in text}
    if squeeze_excite:
        used |= {"relu"} | ({"hard_sigmoid"} if 'gate="' not in text else set())
    written = {"sigmoid": "torch.sigmoid", "hard_swish": "F.hardswish", "hard_sigmoid": "F.hardsigmoid"}
    rows = [f'    "{name}": {written.get(name, f"F.{name}")},' for name in plain.ACTIVATIONS if name in used]
    return "\n".join(["ACTIVATIONS = {", *rows, "}"])

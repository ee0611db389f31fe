"""What timm and torchvision call the layers of our blocks: one table per library and kind of block.

A layer called ``expand`` of our block 3 has the tensors ``blocks.3.expand.weight``, ``blocks.3.expand.norm.running_mean``
and so on; the tables give the name of its convolution and of its normalisation in the other library's block.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from nas.errors import CheckpointError
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Block, ClassicHead, Conv, Fire, FusedBottleneck, MultiQueryAttention, Separable
from searchspace.graph import Norm

Names = Mapping[str, str]  # our layer -> theirs, inside one block

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
INCEPTION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Library:
    """Where weights come from, and what its networks assume beside their weights.

    `norm` is its batch normalisation, `mean` and `std` how its published weights want the colours of pixels normalised, from
    [0, 1].
    """

    name: str
    norm: Norm
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalisation(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation for each of `channels`; a half where they are not three colours."""
        return (self.mean, self.std) if channels == len(self.mean) else ((0.5,) * channels, (0.5,) * channels)


TIMM = Library("timm", Norm(), *IMAGENET)
TIMM_V1 = Library("timm", Norm(), *INCEPTION)
TORCHVISION = Library("torchvision", Norm(), *IMAGENET)
TORCHVISION_V3 = Library("torchvision", Norm(epsilon=1e-3, momentum=0.01), *IMAGENET)

SQUEEZE_EXCITE = {"se.reduce": "se.conv_reduce", "se.expand": "se.conv_expand"}

TIMM_CONV = {"conv": "conv", "conv.norm": "bn1"}
TIMM_SEPARABLE = {"depthwise": "conv_dw", "depthwise.norm": "bn1", "pointwise": "conv_pw", "pointwise.norm": "bn2"}
TIMM_FUSED = {
    "expand": "conv_exp",
    "expand.norm": "bn1",
    "project": "conv_pwl",
    "project.norm": "bn2",
    **SQUEEZE_EXCITE,
}
TIMM_FIRST_ROW = {
    "dw_mid": "conv_dw",
    "dw_mid.norm": "bn1",
    "project": "conv_pw",
    "project.norm": "bn2",
    **SQUEEZE_EXCITE,
}
TIMM_INVERTED = {
    "expand": "conv_pw",
    "expand.norm": "bn1",
    "dw_mid": "conv_dw",
    "dw_mid.norm": "bn2",
    "project": "conv_pwl",
    "project.norm": "bn3",
    **SQUEEZE_EXCITE,
}
TIMM_UNIVERSAL = {
    "dw_start": "dw_start.conv",
    "dw_start.norm": "dw_start.bn",
    "expand": "pw_exp.conv",
    "expand.norm": "pw_exp.bn",
    "dw_mid": "dw_mid.conv",
    "dw_mid.norm": "dw_mid.bn",
    "project": "pw_proj.conv",
    "project.norm": "pw_proj.bn",
    "layer_scale": "layer_scale",
}
TIMM_ATTENTION = {
    "norm": "norm",
    "query": "attn.query.proj",
    "key_down": "attn.key.down_conv",
    "key_down.norm": "attn.key.norm",
    "key": "attn.key.proj",
    "value_down": "attn.value.down_conv",
    "value_down.norm": "attn.value.norm",
    "value": "attn.value.proj",
    "project": "attn.output.proj",
    "layer_scale": "layer_scale",
}
TIMM_STEM = {"conv": "conv_stem", "conv.norm": "bn1"}
TIMM_LAST = {"conv": "conv_head", "conv.norm": "bn2"}
TIMM_HEAD = {"head.hidden": "conv_head", "head.hidden.norm": "norm_head", "head.classifier": "classifier"}

TORCHVISION_CONV = {"conv": "0", "conv.norm": "1"}
TORCHVISION_FIRST_ROW = {"dw_mid": "conv.0.0", "dw_mid.norm": "conv.0.1", "project": "conv.1", "project.norm": "conv.2"}
TORCHVISION_INVERTED = {
    "expand": "conv.0.0",
    "expand.norm": "conv.0.1",
    "dw_mid": "conv.1.0",
    "dw_mid.norm": "conv.1.1",
    "project": "conv.2",
    "project.norm": "conv.3",
}
SQUEEZENET_FIRE = {name: name for name in ("squeeze", "expand1x1", "expand3x3")}


def recognise(names: Set[str], architecture: Architecture) -> tuple[Library, dict[str, str]]:
    """The library that tensors called `names` come from, and its name for every layer of `architecture`.

    Layers are named without the tensor's own last part: ``blocks.3.expand`` and ``blocks.3.expand.norm``.

    Raises:
        CheckpointError: the names are no such library's, or it has no such network.
    """
    if "conv_stem.weight" in names:
        separable = any(isinstance(block, Separable) for block in architecture.blocks)
        return (TIMM_V1 if separable else TIMM), _timm(names, architecture)
    if "features.0.0.weight" in names and any(".block." in name for name in names):
        return TORCHVISION_V3, _torchvision_v3(architecture)
    if "features.0.0.weight" in names:
        return TORCHVISION, _torchvision_v2(architecture)
    if "features.0.weight" in names and any(".squeeze." in name for name in names):
        return TORCHVISION, _torchvision_squeezenet(architecture)
    raise CheckpointError(
        "weights must be a state dict of timm's MobileNetV1 to V4 or torchvision's MobileNetV2, V3 or SqueezeNet, "
        f"got tensors called {', '.join(sorted(names)[:3]) or 'nothing'}"
    )


def foreign_name(ours: str, layers: Mapping[str, str]) -> str:
    """The other library's name of our tensor `ours`, with its names of `layers` from `recognise`.

    Raises:
        CheckpointError: it has no such layer.
    """
    layer, _, part = ours.rpartition(".")
    if layer not in layers:
        raise CheckpointError(f"the library has no layer for {layer}; choose the architecture that the weights are of")
    return f"{layers[layer]}.{'gamma' if layer.endswith('.layer_scale') else part}"


def _timm(names: Set[str], architecture: Architecture) -> dict[str, str]:
    blocks = architecture.blocks
    layers = {**TIMM_HEAD, **_named("blocks.0", "", TIMM_STEM)}
    end = len(blocks)
    if isinstance(architecture.head, ClassicHead) and isinstance(blocks[-1], Conv):
        end -= 1  # to timm, MobileNetV2's last convolution belongs to the head
        layers |= _named(f"blocks.{end}", "", TIMM_LAST)
    found = (re.match(r"blocks\.(\d+)\.(\d+)\.", name) for name in names)
    places = sorted({(int(match[1]), int(match[2])) for match in found if match})
    if len(places) != end - 1:
        raise CheckpointError(
            f"{end - 1} blocks between stem and head are needed, got weights of {len(places)}; "
            "choose the architecture that the weights are of"
        )
    for index, (stage, position) in enumerate(places, start=1):
        place = f"blocks.{stage}.{position}."
        layers |= _named(
            f"blocks.{index}", place, _timm_block(blocks[index], index, f"{place}pw_exp.conv.weight" in names)
        )
    return layers


def _timm_block(block: Block, index: int, universal: bool) -> Names:
    match block:
        case Conv():
            return TIMM_CONV
        case Separable():
            return TIMM_SEPARABLE
        case FusedBottleneck():
            return TIMM_FUSED
        case MultiQueryAttention():
            return TIMM_ATTENTION
        case UIB() if universal:
            return TIMM_UNIVERSAL
        case UIB():
            return TIMM_FIRST_ROW if block.hidden is None else TIMM_INVERTED
    raise _unknown_block(block, index, "timm's MobileNets")


def _torchvision_v2(architecture: Architecture) -> dict[str, str]:
    layers = {"head.classifier": "classifier.1"}
    for index, block in enumerate(architecture.blocks):
        match block:
            case Conv():
                names: Names = TORCHVISION_CONV
            case UIB():
                names = TORCHVISION_FIRST_ROW if block.hidden is None else TORCHVISION_INVERTED
            case _:
                raise _unknown_block(block, index, "torchvision's MobileNetV2")
        layers |= _named(f"blocks.{index}", f"features.{index}.", names)
    return layers


def _torchvision_v3(architecture: Architecture) -> dict[str, str]:
    layers = {"head.hidden": "classifier.0", "head.classifier": "classifier.3"}
    for index, block in enumerate(architecture.blocks):
        match block:
            case Conv():
                names: Names = TORCHVISION_CONV
            case UIB():
                names = _torchvision_v3_block(block)
            case _:
                raise _unknown_block(block, index, "torchvision's MobileNetV3")
        layers |= _named(f"blocks.{index}", f"features.{index}.", names)
    return layers


def _torchvision_v3_block(block: UIB) -> dict[str, str]:
    """Its layers are numbered in order, so those that are left out move the others."""
    present: Sequence[str] = [
        layer
        for layer, there in (("expand", block.hidden), ("dw_mid", block.dw_mid), ("se", block.se), ("project", True))
        if there
    ]
    names: dict[str, str] = {}
    for position, layer in enumerate(present):
        if layer == "se":
            names |= {"se.reduce": f"block.{position}.fc1", "se.expand": f"block.{position}.fc2"}
        else:
            names |= {layer: f"block.{position}.0", f"{layer}.norm": f"block.{position}.1"}
    return names


def _torchvision_squeezenet(architecture: Architecture) -> dict[str, str]:
    layers = {"head.classifier": "classifier.1"}
    position = 0
    for index, block in enumerate(architecture.blocks):
        if isinstance(block, Conv):
            layers[f"blocks.{index}.conv"] = f"features.{position}"
            position += 1  # its ReLU has a place of its own
        elif isinstance(block, Fire):
            layers |= _named(f"blocks.{index}", f"features.{position}.", SQUEEZENET_FIRE)
        position += 1
    return layers


def _named(ours: str, place: str, names: Names) -> dict[str, str]:
    return {f"{ours}.{layer}": place + theirs for layer, theirs in names.items()}


def _unknown_block(block: Block, index: int, library: str) -> CheckpointError:
    return CheckpointError(
        f"the weights are {library}, which have no block like block {index} ({type(block).__name__}); "
        "choose the architecture that the weights are of"
    )

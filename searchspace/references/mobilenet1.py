"""MobileNetV1 (arXiv 1704.04861) and its twin of plain convolutions."""

from searchspace.architecture import Architecture
from searchspace.blocks import Block, ClassicHead, Conv, Separable
from searchspace.references.scaling import round_to_eights

# Table 1, a depthwise layer and the pointwise layer after it in one row.
STEM = 32
ROWS = (  # out, stride
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


def mobilenet_v1(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV1: 224 px, 4.2M parameters, 569M MACs, 70.6 % top-1.

    Source: Table 1; width multipliers 0.75, 0.5, 0.25 Table 6, resolutions 192, 160, 128 Table 7. α scales every layer
    but the classifier.

    Paper and release: the table prints stride 2 for the last depthwise layer, its sizes and the release need 1. The paper
    writes ReLU, the release (and timm) use ReLU6. The release drops 0.1 % before the classifier.
    """
    blocks = (
        Separable(cout=round_to_eights(width_multiplier * out), stride=stride, activation="relu6")
        for out, stride in ROWS
    )
    return _network(width_multiplier, tuple(blocks))


def mobilenet_v1_full_conv(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV1 with a plain 3×3 convolution in place of each separable one: 29.3M parameters, 4867M MACs, 71.7 % top-1.

    Source: Table 4, "Conv MobileNet". The published 4866M leaves the classifier's million out, which the 569M of MobileNet
    itself includes. It was not released; activation and dropout are those of the released MobileNetV1.
    """
    blocks = (
        Conv(cout=round_to_eights(width_multiplier * out), stride=stride, activation="relu6") for out, stride in ROWS
    )
    return _network(width_multiplier, tuple(blocks))


def _network(width_multiplier: float, blocks: tuple[Block, ...]) -> Architecture:
    stem = Conv(cout=round_to_eights(width_multiplier * STEM), stride=2, activation="relu6")
    return Architecture((stem, *blocks), ClassicHead(dropout=0.001), resolution=224)

"""MobileNetV3-Large and -Small (arXiv 1905.02244)."""

from collections.abc import Sequence

from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Block, Conv, MobileNetHead
from searchspace.graph import ActivationKind, Norm
from searchspace.references.scaling import round_to_eights

NORM = Norm(epsilon=1e-3, momentum=0.01)  # section 6.1.1: average decay of 0.99; epsilon from the release
STEM = 16
RE: ActivationKind = "relu"
HS: ActivationKind = "hard_swish"
Row = tuple[int, int, int, bool, ActivationKind, int]

LARGE: tuple[Row, ...] = (  # Table 1: kernel, expansion, out, squeeze-excite, non-linearity, stride
    (3, 16, 16, False, RE, 1),
    (3, 64, 24, False, RE, 2),
    (3, 72, 24, False, RE, 1),
    (5, 72, 40, True, RE, 2),
    (5, 120, 40, True, RE, 1),
    (5, 120, 40, True, RE, 1),
    (3, 240, 80, False, HS, 2),
    (3, 200, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 184, 80, False, HS, 1),
    (3, 480, 112, True, HS, 1),
    (3, 672, 112, True, HS, 1),
    (5, 672, 160, True, HS, 2),
    (5, 960, 160, True, HS, 1),
    (5, 960, 160, True, HS, 1),
)

SMALL: tuple[Row, ...] = (  # Table 2
    (3, 16, 16, True, RE, 2),
    (3, 72, 24, False, RE, 2),
    (3, 88, 24, False, RE, 1),
    (5, 96, 40, True, HS, 2),
    (5, 240, 40, True, HS, 1),
    (5, 240, 40, True, HS, 1),
    (5, 120, 48, True, HS, 1),
    (5, 144, 48, True, HS, 1),
    (5, 288, 96, True, HS, 2),
    (5, 576, 96, True, HS, 1),
    (5, 576, 96, True, HS, 1),
)


def mobilenet_v3_large(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV3-Large: 224 px, 5.5M parameters, 217M MACs, 75.2 % top-1.

    Source: Table 1. Widths are rounded to multiples of 8; an expansion keeps its ratio to the rounded width it starts from,
    squeeze-excite a quarter of the expansion. Exceptions: the 1280 of the head are never scaled, the stem's 16 not below
    α 0.75.

    Paper and release: the same network. Batch normalisation has the release's epsilon 1e-3 (torchvision too; timm 1e-5).
    """
    return _network(LARGE, width_multiplier, last=960, hidden=1280)


def mobilenet_v3_small(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV3-Small: 224 px, 2.5M parameters, 57M MACs, 67.4 % top-1.

    Source: Table 2; multipliers as in `mobilenet_v3_large`, the head's 1024 never scaled.

    Paper and release: the table ticks squeeze-excite for the last 1×1 convolution too, which the release, timm and
    torchvision do not have (it would add 167k parameters).
    """
    return _network(SMALL, width_multiplier, last=576, hidden=1024)


def _network(rows: Sequence[Row], multiplier: float, *, last: int, hidden: int) -> Architecture:
    nominal, width = STEM, STEM if multiplier < 0.75 else round_to_eights(multiplier * STEM)
    blocks: list[Block] = [Conv(cout=width, stride=2, activation=HS)]
    for kernel, expansion, out, squeeze_excite, activation, stride in rows:
        cout = round_to_eights(multiplier * out)
        expanded = width if expansion == nominal else round_to_eights(width * expansion / nominal)
        blocks.append(
            UIB(
                cout=cout,
                hidden=None if expansion == nominal else expanded,
                dw_mid=kernel,
                stride=stride,
                activation=activation,
                se=round_to_eights(expanded / 4) if squeeze_excite else 0,
                residual=stride == 1 and width == cout,
            )
        )
        nominal, width = out, cout
    blocks.append(Conv(cout=round_to_eights(multiplier * last), kernel=1, activation=HS))
    head = MobileNetHead(hidden=hidden, norm=False, activation=HS, dropout=0.2)
    return Architecture(tuple(blocks), head, resolution=224, norm=NORM)

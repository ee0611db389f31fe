"""MobileNetV2 (arXiv 1801.04381)."""

from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Block, ClassicHead, Conv
from searchspace.references.scaling import round_to_eights

STEM, LAST = 32, 1280
ROWS = (  # Table 2: expansion t, out c, repeats n, stride s of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV2: 224 px, 3.5M parameters, 301M MACs, 72.0 % top-1.

    Source: Table 2, and section 6.1 for the multipliers (0.35 to 1.4, at 96 to 224 px). Widths are rounded to multiples of
    8; the last convolution's 1280 grow with α above 1 but do not shrink below it.

    Paper and release: the same network. The paper's 3.4M parameters leave batch normalisation out (3.47M).
    """
    width = round_to_eights(width_multiplier * STEM)
    blocks: list[Block] = [Conv(cout=width, stride=2, activation="relu6")]
    for expansion, out, repeats, first_stride in ROWS:
        cout = round_to_eights(width_multiplier * out)
        for stride in (first_stride, *[1] * (repeats - 1)):
            blocks.append(
                UIB(
                    cout=cout,
                    hidden=None if expansion == 1 else expansion * width,
                    stride=stride,
                    activation="relu6",
                    residual=stride == 1 and width == cout,
                )
            )
            width = cout
    last = max(LAST, round_to_eights(width_multiplier * LAST))
    blocks.append(Conv(cout=last, kernel=1, activation="relu6"))
    return Architecture(tuple(blocks), ClassicHead(dropout=0.2), resolution=224)

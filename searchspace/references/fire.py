"""SqueezeNet (arXiv 1602.07360): a generator for its metaparameters, and the published networks."""

from typing import Literal

from searchspace.architecture import Architecture
from searchspace.blocks import Block, Bypass, Conv, Fire, NinHead, Pool
from searchspace.errors import ArchitectureError
from searchspace.references.scaling import round_to_eights

RESOLUTION = 227  # the paper writes 224, but its map sizes and the released crops are those of 227
POOL = Pool(function="max", kernel=3, stride=2, ceil=True)


def squeezenet(
    *,
    base_e: int = 128,
    incr_e: int = 128,
    freq: int = 2,
    pct3x3: float = 0.5,
    squeeze_ratio: float = 0.125,
    modules: int = 8,
    bypass: Literal["none", "simple", "complex"] = "none",
    stem: Conv | None = None,
    pool_after: tuple[int, ...] = (1, 4, 8),
    width_multiplier: float = 1.0,
) -> Architecture:
    """Fire networks in general (section 5); the defaults are SqueezeNet 1.0.

    Module i (from 0) expands to e = base_e + incr_e·⌊i / freq⌋ channels, of which the share `pct3x3` in 3×3 filters, after
    squeezing to `squeeze_ratio`·e; both rounded down.

    Args:
        base_e: expansion of the first module.
        incr_e: added to the expansion after every `freq` modules.
        freq: how many modules have one width.
        pct3x3: share of the expansion in 3×3 filters, between 0 and 1.
        squeeze_ratio: squeezed by expanded channels, in (0, 1].
        modules: how many Fire modules.
        bypass: "simple" adds the input of every other module, from the second one, to its output; "complex" also does so
            for the others, through a 1×1 convolution (Figure 2).
        stem: first convolution; None: 96 7×7 filters of stride 2.
        pool_after: layers that a 3×3 maximum pool of stride 2 follows; the stem is 1, the first module 2.
        width_multiplier: α for all widths but the classifier's, rounded to multiples of 8 unless it is 1. The paper has
            none (its metaparameters do this); here for being comparable with the other families.

    Raises:
        ArchitectureError: a metaparameter is outside its range.
    """
    if not (0 < pct3x3 < 1 and 0 < squeeze_ratio <= 1 and freq >= 1):
        raise ArchitectureError(
            "pct3x3 must be in (0, 1), squeeze_ratio in (0, 1] and freq at least 1, "
            f"got {pct3x3}, {squeeze_ratio} and {freq}"
        )

    def scaled(width: float) -> int:
        return int(width) if width_multiplier == 1 else round_to_eights(width_multiplier * width)

    stem = stem or Conv(cout=96, kernel=7, stride=2, padding=0)
    blocks: list[Block] = [Conv(cout=scaled(stem.cout), kernel=stem.kernel, stride=stem.stride, padding=stem.padding)]
    for layer in range(1, modules + 2):
        if layer > 1:
            expand = base_e + incr_e * ((layer - 2) // freq)
            expand3x3 = int(pct3x3 * expand)
            blocks.append(
                Fire(
                    squeeze=scaled(squeeze_ratio * expand),
                    expand1x1=scaled(expand - expand3x3),
                    expand3x3=scaled(expand3x3),
                    bypass=_bypass(bypass, layer),
                )
            )
        if layer in pool_after:
            blocks.append(POOL)
    return Architecture(tuple(blocks), NinHead(dropout=0.5), resolution=RESOLUTION, norm=None)


def _bypass(kind: str, layer: int) -> Bypass:
    if layer % 2:
        return "none" if kind == "none" else "identity"
    return "conv" if kind == "complex" else "none"


def squeezenet_1_0(width_multiplier: float = 1.0) -> Architecture:
    """SqueezeNet 1.0: 227 px, 1,248,424 parameters, 833M MACs, 57.5 % top-1, 80.3 % top-5.

    Source: Table 1. Paper and release: the paper's input of 224 px does not give its map sizes (111, 55, 27, 13); the
    release crops 227, which does. The first convolution is unpadded, pools round sizes up, convolutions have biases and
    there is no batch normalisation.
    """
    return squeezenet(width_multiplier=width_multiplier)


def squeezenet_1_0_simple_bypass(width_multiplier: float = 1.0) -> Architecture:
    """SqueezeNet with bypasses around fire3, 5, 7 and 9: the same parameters, 60.4 % top-1, 82.5 % top-5.

    Source: Figure 2 (middle), Table 3.
    """
    return squeezenet(bypass="simple", width_multiplier=width_multiplier)


def squeezenet_1_0_complex_bypass(width_multiplier: float = 1.0) -> Architecture:
    """SqueezeNet with 1×1 convolutions around fire2, 4, 6 and 8 as well: 1,589,672 parameters, 58.8 % top-1, 82.0 % top-5.

    Source: Figure 2 (right), Table 3. The 7.7 MB printed there are not explained by the text: these are 6.1 MiB.
    """
    return squeezenet(bypass="complex", width_multiplier=width_multiplier)


def squeezenet_1_1(width_multiplier: float = 1.0) -> Architecture:
    """SqueezeNet 1.1: 227 px, 1,235,496 parameters, 388M MACs, the accuracy of 1.0.

    Source: the release (github forresti/SqueezeNet); it is in no paper. 64 3×3 filters first, and earlier pools.
    """
    return squeezenet(
        stem=Conv(cout=64, kernel=3, stride=2, padding=0), pool_after=(1, 3, 5), width_multiplier=width_multiplier
    )

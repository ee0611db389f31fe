"""Three kinds of candidate of 7 to 12 million MACs at 32 px, for experiments about speed."""

from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Conv, Fire, FusedBottleneck

RESOLUTION = 32


def architectures() -> dict[str, Architecture]:
    """One network of each kind, by its name."""
    return {
        "uib": network(
            Conv(cout=16),
            UIB(cout=24, hidden=96, dw_mid=3, stride=2),
            UIB(cout=24, hidden=96, dw_start=3, dw_mid=3, residual=True),
            UIB(cout=48, hidden=192, dw_start=3, dw_mid=3, stride=2),
            UIB(cout=48, hidden=192, dw_start=3, dw_mid=5, residual=True),
            UIB(cout=96, hidden=288, dw_mid=5, stride=2),
            UIB(cout=96, hidden=384, dw_mid=3, residual=True),
        ),
        "fire": network(
            Conv(cout=32, stride=2),
            Fire(squeeze=16, expand1x1=32, expand3x3=32),
            Fire(squeeze=16, expand1x1=32, expand3x3=32, bypass="identity"),
            Conv(cout=64, kernel=1, stride=2),
            Fire(squeeze=32, expand1x1=80, expand3x3=80),
            Fire(squeeze=32, expand1x1=80, expand3x3=80, bypass="identity"),
            Fire(squeeze=48, expand1x1=128, expand3x3=128),
        ),
        "fused": network(
            Conv(cout=16, stride=2),
            FusedBottleneck(cout=24, hidden=48),
            FusedBottleneck(cout=48, hidden=96, stride=2),
            FusedBottleneck(cout=48, hidden=96, residual=True),
            FusedBottleneck(cout=96, hidden=192, stride=2),
            FusedBottleneck(cout=96, hidden=192, residual=True),
        ),
    }


def network(*blocks: object) -> Architecture:
    return Architecture(blocks, resolution=RESOLUTION, classes=10)  # type: ignore[arg-type]

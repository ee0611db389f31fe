"""The networks whose latencies were published, as architectures: the references, and relatives of theirs.

Relatives are told by their tables alone. MnasNet (arXiv 1807.11626) and ProxylessNAS (arXiv 1812.00332) are stacks of
MobileNetV2's block; MobileNetV3's *minimalistic* networks are those without squeeze-excite, hard-swish and 5×5 windows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from latency.errors import ModelError
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Block, ClassicHead, Conv, MobileNetHead
from searchspace.graph import ActivationKind
from searchspace.references import REFERENCES, reference

Row = tuple[int, int, int, int, int, bool]  # kernel, expansion, out, repeats, stride of the first, squeeze-excite

MNASNET_A1: tuple[Row, ...] = (
    (3, 6, 24, 2, 2, False),
    (5, 3, 40, 3, 2, True),
    (3, 6, 80, 4, 2, False),
    (3, 6, 112, 2, 1, True),
    (5, 6, 160, 3, 2, True),
    (3, 6, 320, 1, 1, False),
)
MNASNET_B1: tuple[Row, ...] = (
    (3, 3, 24, 3, 2, False),
    (5, 3, 40, 3, 2, False),
    (5, 6, 80, 3, 2, False),
    (3, 6, 96, 2, 1, False),
    (5, 6, 192, 4, 2, False),
    (3, 6, 320, 1, 1, False),
)
MNASNET_SMALL: tuple[Row, ...] = (
    (3, 3, 16, 1, 2, False),
    (3, 6, 16, 2, 2, False),
    (5, 6, 32, 4, 2, True),
    (3, 6, 32, 3, 1, True),
    (5, 6, 88, 3, 2, True),
    (3, 6, 144, 1, 1, False),
)

STAGES = ((32, 2), (40, 2), (80, 2), (96, 1), (192, 2), (320, 1))  # of the ProxylessNAS space: out, stride
BLOCKS = (4, 4, 4, 4, 4, 1)  # places for blocks in each
PROXYLESSNAS_MOBILE = "3 5e3 3e3 - - 7e3 3e3 5e3 5e3 7e6 5e3 5e3 5e3 5e6 5e3 5e3 5e3 7e6 7e6 7e3 7e3 7e6"


def published_network(name: str, *, width_multiplier: float = 1.0, resolution: int | None = None) -> Architecture:
    """A network of the published tables, with 1,000 classes.

    Args:
        name: a reference's, one of `RELATIVES`, or ``proxylessnas:`` and the choices of `proxylessnas`.
        width_multiplier: α; references only.
        resolution: pixels a side; None: as it was published first.

    Raises:
        ModelError: there is no such network.
    """
    if name in REFERENCES:
        return reference(name, width_multiplier=width_multiplier, resolution=resolution)
    if width_multiplier != 1:
        raise ModelError(f"figures: {name} takes no width multiplier, got {width_multiplier}")
    if name.startswith("proxylessnas:"):
        network = proxylessnas(name.partition(":")[2])
    elif name in RELATIVES:
        network = RELATIVES[name]()
    else:
        raise ModelError(f"figures: no published network is called {name!r}")
    return replace(network, name=name, resolution=resolution or network.resolution)


def mnasnet(rows: Sequence[Row], *, stem: int = 32, first: int = 16) -> Architecture:
    """A network of MnasNet's kind: squeeze-excite has a quarter of the channels that enter the block."""
    blocks: list[Block] = [Conv(cout=stem, stride=2), UIB(cout=first, hidden=None)]
    width = first
    for kernel, expansion, out, repeats, first_stride, squeeze_excite in rows:
        for stride in (first_stride, *[1] * (repeats - 1)):
            blocks.append(
                UIB(
                    cout=out,
                    hidden=expansion * width,
                    dw_mid=kernel,
                    stride=stride,
                    se=width // 4 if squeeze_excite else 0,
                    residual=stride == 1 and width == out,
                )
            )
            width = out
    return Architecture((*blocks, Conv(cout=1280, kernel=1)), ClassicHead(), resolution=224)


def proxylessnas(choices: str) -> Architecture:
    """A network of the ProxylessNAS space.

    Args:
        choices: window of the first block, then for each place ``KeE`` (window and expansion) or ``-`` (left out).
    """
    relu6: ActivationKind = "relu6"
    first, *rest = choices.split()
    blocks: list[Block] = [
        Conv(cout=32, stride=2, activation=relu6),
        UIB(cout=16, hidden=None, dw_mid=int(first), activation=relu6),
    ]
    width = 16
    for choice, (out, stride, is_first) in zip(rest, _places(), strict=True):
        if choice == "-":
            continue
        kernel, expansion = map(int, choice.split("e"))
        blocks.append(
            UIB(
                cout=out,
                hidden=expansion * width,
                dw_mid=kernel,
                stride=stride if is_first else 1,
                activation=relu6,
                residual=not is_first,
            )
        )
        width = out
    return Architecture((*blocks, Conv(cout=1280, kernel=1, activation=relu6)), ClassicHead(), resolution=224)


def _places() -> Iterator[tuple[int, int, bool]]:
    for (out, stride), places in zip(STAGES, BLOCKS, strict=True):
        for index in range(places):
            yield out, stride, index == 0


def _rewritten(name: str, changes: Mapping[str, Any]) -> Architecture:
    """A reference with ReLU everywhere, and `changes` to its bottlenecks."""
    network = reference(name)
    relu: ActivationKind = "relu"
    blocks = tuple(
        replace(block, activation=relu, **changes) if isinstance(block, UIB) else replace(block, activation=relu)
        for block in network.blocks
        if isinstance(block, UIB | Conv)
    )
    assert isinstance(network.head, MobileNetHead)
    return replace(network, blocks=blocks, head=replace(network.head, activation=relu))


RELATIVES: dict[str, Callable[[], Architecture]] = {
    "mnasnet_a1": lambda: mnasnet(MNASNET_A1),
    "mnasnet_b1": lambda: mnasnet(MNASNET_B1),
    "mnasnet_small": lambda: mnasnet(MNASNET_SMALL, stem=8, first=8),
    "proxylessnas_mobile": lambda: proxylessnas(PROXYLESSNAS_MOBILE),
    "mobilenet_v3_large_relu": lambda: _rewritten("mobilenet_v3_large", {}),
    "mobilenet_v3_large_minimalistic": lambda: _rewritten("mobilenet_v3_large", {"se": 0, "dw_mid": 3}),
    "mobilenet_v3_small_minimalistic": lambda: _rewritten("mobilenet_v3_small", {"se": 0, "dw_mid": 3}),
}

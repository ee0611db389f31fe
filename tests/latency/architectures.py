"""Random architectures that go further than any search space: all blocks, unaligned widths, maps down to one pixel."""

import random

from searchspace.architecture import Architecture
from searchspace.blocks import (
    UIB,
    Block,
    ClassicHead,
    Conv,
    Fire,
    FusedBottleneck,
    MobileNetHead,
    MultiQueryAttention,
    NinHead,
    Pool,
    Separable,
)
from searchspace.graph import ACTIVATIONS, Norm

WIDTHS = (4, 6, 8, 10, 12, 16, 17, 18, 20, 24, 28, 32, 33, 36, 40, 48, 60, 64)


def wild_architecture(seed: int) -> Architecture:
    """A small network of up to six blocks drawn without any regard to what makes sense."""
    source = random.Random(seed)
    stem = Conv(
        cout=source.choice(WIDTHS), stride=source.choice((1, 2)), activation=source.choice((*ACTIVATIONS, None))
    )
    blocks: list[Block] = [stem]
    cin = stem.cout
    for _ in range(source.randint(1, 5)):
        blocks.append(_block(source, cin))
        cin = getattr(blocks[-1], "cout", cin)
    head = source.choice(
        (
            ClassicHead(),
            NinHead(activation=source.choice((None, "relu"))),
            MobileNetHead(
                hidden=source.choice(WIDTHS), norm=source.random() < 0.5, activation=source.choice(ACTIVATIONS)
            ),
        )
    )
    resolution = source.choice((4, 7, 8, 16, 20, 32))
    return Architecture(tuple(blocks), head, resolution, classes=10, norm=source.choice((Norm(), Norm(), None)))


def _block(source: random.Random, cin: int) -> Block:
    kind = source.choice(("conv", "separable", "uib", "uib", "uib", "fused", "fire", "fire", "mqa", "pool"))
    cout = source.choice((cin, source.choice(WIDTHS)))
    hidden = source.choice(WIDTHS) * source.choice((1, 2))
    activation = source.choice(ACTIVATIONS)
    squeeze_excite = source.choice((0, 0, source.choice(WIDTHS)))
    residual = cout == cin and source.random() < 0.7
    layer_scale = source.choice((None, None, 1e-5))
    match kind:
        case "conv":
            return Conv(cout=cout, kernel=source.choice((1, 3, 5)), activation=source.choice((activation, None)))
        case "separable":
            return Separable(cout=cout, activation=activation)
        case "uib":
            return UIB(
                cout=cout,
                hidden=hidden,
                dw_start=source.choice((0, 3, 5)),
                dw_mid=source.choice((0, 3)),
                activation=activation,
                se=squeeze_excite,
                se_gate=source.choice(("sigmoid", "hard_sigmoid")),
                residual=residual,
                layer_scale=layer_scale,
            )
        case "fused":
            return FusedBottleneck(
                cout=cout, hidden=hidden, activation=activation, se=squeeze_excite, residual=residual
            )
        case "fire":
            bypass = source.choice(("none", "conv", "identity"))
            one, three = source.choice(WIDTHS), source.choice(WIDTHS)
            if bypass == "identity":
                one, three = cin // 2, cin - cin // 2
            return Fire(
                squeeze=source.choice(WIDTHS), expand1x1=one, expand3x3=three, bypass=bypass, activation=activation
            )
        case "mqa":
            return MultiQueryAttention(
                heads=source.choice((1, 2, 4)),
                key_dim=source.choice(WIDTHS),
                value_dim=source.choice(WIDTHS),
                kv_stride=source.choice((1, 2)),
                shared=source.random() < 0.5,
                residual=source.random() < 0.6,
                layer_scale=layer_scale,
            )
    return Pool(function=source.choice(("max", "avg")), kernel=3, stride=1, padding=1)

"""MobileNetV4 (arXiv 2404.10518, Tables 11 to 15): Conv-S, Conv-M, Conv-L, Hybrid-M and Hybrid-L.

Every number below is one of a table's row, in its order; the hybrids' attention settings, which the tables leave out, are
those of the release (tensorflow/models, official/vision/modeling/backbones/mobilenet.py). Batch normalisation is timm's,
whose weights are the published ones.

The paper gives no rule for width multipliers: each size was searched by itself. timm's is followed: widths are rounded to
multiples of 8, expansions keep their ratio, the head's 1280 are never scaled, the stem not below α 1, attention's
dimensions per head never.
"""

from collections.abc import Sequence
from dataclasses import replace

from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Block, Conv, FusedBottleneck, MobileNetHead, MultiQueryAttention
from searchspace.graph import ActivationKind
from searchspace.references.scaling import round_to_eights

LAST, HIDDEN = 960, 1280
LAYER_SCALE = 1e-5


def _conv(kernel: int, out: int, stride: int = 1) -> Conv:
    return Conv(cout=out, kernel=kernel, stride=stride)


def _fused(kernel: int, hidden: int, out: int, stride: int = 1) -> FusedBottleneck:
    return FusedBottleneck(cout=out, hidden=hidden, kernel=kernel, stride=stride)


def _extra(dw_start: int, dw_mid: int, hidden: int, out: int, stride: int = 1) -> UIB:
    return UIB(cout=out, hidden=hidden, dw_start=dw_start, dw_mid=dw_mid, stride=stride)


def _ib(dw_mid: int, hidden: int, out: int) -> UIB:
    return UIB(cout=out, hidden=hidden, dw_mid=dw_mid)


def _convnext(dw_start: int, hidden: int, out: int) -> UIB:
    return UIB(cout=out, hidden=hidden, dw_start=dw_start, dw_mid=0)


def _ffn(hidden: int, out: int) -> UIB:
    return UIB(cout=out, hidden=hidden, dw_mid=0)


def _mqa(heads: int, dimension: int, kv_stride: int = 1) -> MultiQueryAttention:
    return MultiQueryAttention(
        heads=heads, key_dim=dimension, value_dim=dimension, kv_stride=kv_stride, layer_scale=LAYER_SCALE
    )


def mobilenet_v4_conv_s(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV4-Conv-S: 224 px, 3.8M parameters, 186M MACs, 73.8 % top-1.

    Source: Table 11. Paper and release: the table's two FusedIB rows were released as two plain convolutions each, so
    their 1×1 layers are activated too.
    """
    rows = (
        _conv(3, 32, 2),
        _conv(1, 32),
        _conv(3, 96, 2),
        _conv(1, 64),
        _extra(5, 5, 192, 96, 2),
        _ib(3, 192, 96),
        _ib(3, 192, 96),
        _ib(3, 192, 96),
        _ib(3, 192, 96),
        _convnext(3, 384, 96),
        _extra(3, 3, 576, 128, 2),
        _extra(5, 5, 512, 128),
        _ib(5, 512, 128),
        _ib(5, 384, 128),
        _ib(3, 512, 128),
        _ib(3, 512, 128),
    )
    return _network(rows, width_multiplier, stem=32, resolution=224, dropout=0.3)


def mobilenet_v4_conv_m(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV4-Conv-M: 256 px, 9.7M parameters, 1.08G MACs, 79.9 % top-1.

    Source: Table 12. Paper and release: the same network. The published 9.2M and 1.0G are 2^20 parameters with batch
    normalisation folded and 2^30 MACs; so too for the larger ones.
    """
    rows = (
        _fused(3, 128, 48, 2),
        _extra(3, 5, 192, 80, 2),
        _extra(3, 3, 160, 80),
        _extra(3, 5, 480, 160, 2),
        _extra(3, 3, 640, 160),
        _extra(3, 3, 640, 160),
        _extra(3, 5, 640, 160),
        _extra(3, 3, 640, 160),
        _convnext(3, 640, 160),
        _ffn(320, 160),
        _convnext(3, 640, 160),
        _extra(5, 5, 960, 256, 2),
        _extra(5, 5, 1024, 256),
        _extra(3, 5, 1024, 256),
        _extra(3, 5, 1024, 256),
        _ffn(1024, 256),
        _convnext(3, 1024, 256),
        _extra(3, 5, 512, 256),
        _extra(5, 5, 1024, 256),
        _ffn(1024, 256),
        _ffn(1024, 256),
        _convnext(5, 512, 256),
    )
    return _network(rows, width_multiplier, stem=32, resolution=256)


def mobilenet_v4_conv_l(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV4-Conv-L: 384 px, 32.6M parameters, 6.38G MACs, 82.9 % top-1.

    Source: Table 14. Paper and release: the same network.
    """
    rows = (
        _fused(3, 96, 48, 2),
        _extra(3, 5, 192, 96, 2),
        _extra(3, 3, 384, 96),
        _extra(3, 5, 384, 192, 2),
        _extra(3, 3, 768, 192),
        _extra(3, 3, 768, 192),
        _extra(3, 3, 768, 192),
        _extra(3, 5, 768, 192),
        _extra(5, 3, 768, 192),
        _extra(5, 3, 768, 192),
        _extra(5, 3, 768, 192),
        _extra(5, 3, 768, 192),
        _extra(5, 3, 768, 192),
        _convnext(3, 768, 192),
        _extra(5, 5, 768, 512, 2),
        _extra(5, 5, 2048, 512),
        _extra(5, 5, 2048, 512),
        _extra(5, 5, 2048, 512),
        _convnext(5, 2048, 512),
        _extra(5, 3, 2048, 512),
        _convnext(5, 2048, 512),
        _convnext(5, 2048, 512),
        _extra(5, 3, 2048, 512),
        _extra(5, 5, 2048, 512),
        _convnext(5, 2048, 512),
        _convnext(5, 2048, 512),
        _convnext(5, 2048, 512),
    )
    return _network(rows, width_multiplier, stem=24, resolution=384)


def mobilenet_v4_hybrid_m(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV4-Hybrid-M: 256 px, 11.1M parameters, 1.27G MACs, 80.7 % top-1.

    Source: the release; timm has the same. Paper and release: Table 13 prints other blocks at 16×16 and 8×8 px, which would
    have 11.2M parameters and 1.30G MACs; the published 10.5M and 1.2G are the release's.
    """
    rows = (
        _fused(3, 128, 48, 2),
        _extra(3, 5, 192, 80, 2),
        _extra(3, 3, 160, 80),
        _extra(3, 5, 480, 160, 2),
        _ffn(320, 160),
        _extra(3, 3, 640, 160),
        _extra(3, 5, 640, 160),
        _mqa(4, 64, 2),
        _extra(3, 3, 640, 160),
        _mqa(4, 64, 2),
        _convnext(3, 640, 160),
        _mqa(4, 64, 2),
        _extra(3, 3, 640, 160),
        _mqa(4, 64, 2),
        _convnext(3, 640, 160),
        _extra(5, 5, 960, 256, 2),
        _extra(5, 5, 1024, 256),
        _extra(3, 5, 1024, 256),
        _extra(3, 5, 1024, 256),
        _ffn(512, 256),
        _extra(3, 5, 512, 256),
        _ffn(512, 256),
        _ffn(1024, 256),
        _mqa(4, 64),
        _convnext(3, 1024, 256),
        _mqa(4, 64),
        _extra(5, 5, 1024, 256),
        _mqa(4, 64),
        _convnext(5, 1024, 256),
        _mqa(4, 64),
        _convnext(5, 1024, 256),
    )
    return _network(rows, width_multiplier, stem=32, resolution=256, layer_scale=LAYER_SCALE)


def hybrid_m_paper_table(width_multiplier: float = 1.0) -> Architecture:
    """Hybrid-M as Table 13 prints it, which is not what was released as `mobilenet_v4_hybrid_m`: 11.2M parameters, 1.30G MACs."""
    rows = (
        _fused(3, 128, 48, 2),
        _extra(3, 5, 192, 80, 2),
        _extra(3, 3, 160, 80),
        _extra(3, 5, 480, 160, 2),
        _extra(3, 3, 640, 160),
        _extra(3, 3, 640, 160),
        _extra(3, 5, 640, 160),
        _mqa(4, 64, 2),
        _extra(3, 3, 640, 160),
        _mqa(4, 64, 2),
        _convnext(3, 640, 160),
        _mqa(4, 64, 2),
        _ffn(640, 160),
        _mqa(4, 64, 2),
        _convnext(3, 640, 160),
        _extra(5, 5, 960, 256, 2),
        _extra(5, 5, 1024, 256),
        _extra(3, 5, 1024, 256),
        _extra(3, 5, 1024, 256),
        _ffn(1024, 256),
        _convnext(3, 1024, 256),
        _extra(3, 5, 512, 256),
        _mqa(4, 64),
        _extra(5, 5, 1024, 256),
        _mqa(4, 64),
        _ffn(1024, 256),
        _mqa(4, 64),
        _ffn(1024, 256),
        _mqa(4, 64),
        _convnext(5, 1024, 256),
    )
    return _network(rows, width_multiplier, stem=32, resolution=256, layer_scale=LAYER_SCALE)


def mobilenet_v4_hybrid_l(width_multiplier: float = 1.0) -> Architecture:
    """MobileNetV4-Hybrid-L: 384 px, 37.8M parameters, 7.71G MACs, 83.4 % top-1.

    Source: Table 15. Paper and release: the same blocks; the release activates with GELU, of which the paper says nothing.
    """
    rows = (
        _fused(3, 96, 48, 2),
        _extra(3, 5, 192, 96, 2),
        _extra(3, 3, 384, 96),
        _extra(3, 5, 384, 192, 2),
        _extra(3, 3, 768, 192),
        _extra(3, 3, 768, 192),
        _extra(3, 3, 768, 192),
        _extra(3, 5, 768, 192),
        _extra(5, 3, 768, 192),
        _extra(5, 3, 768, 192),
        _mqa(8, 48, 2),
        _extra(5, 3, 768, 192),
        _mqa(8, 48, 2),
        _extra(5, 3, 768, 192),
        _mqa(8, 48, 2),
        _extra(5, 3, 768, 192),
        _mqa(8, 48, 2),
        _convnext(3, 768, 192),
        _extra(5, 5, 768, 512, 2),
        _extra(5, 5, 2048, 512),
        _extra(5, 5, 2048, 512),
        _extra(5, 5, 2048, 512),
        _convnext(5, 2048, 512),
        _extra(5, 3, 2048, 512),
        _convnext(5, 2048, 512),
        _convnext(5, 2048, 512),
        _extra(5, 3, 2048, 512),
        _extra(5, 5, 2048, 512),
        _mqa(8, 64),
        _convnext(5, 2048, 512),
        _mqa(8, 64),
        _convnext(5, 2048, 512),
        _mqa(8, 64),
        _convnext(5, 2048, 512),
        _mqa(8, 64),
        _convnext(5, 2048, 512),
    )
    return _network(rows, width_multiplier, stem=24, resolution=384, activation="gelu", layer_scale=LAYER_SCALE)


def _network(
    rows: Sequence[Conv | FusedBottleneck | UIB | MultiQueryAttention],
    multiplier: float,
    *,
    stem: int,
    resolution: int,
    activation: ActivationKind = "relu",
    layer_scale: float | None = None,
    dropout: float = 0.2,
) -> Architecture:
    """Rows with the multiplier applied, residuals where stride and widths allow, the common activation and layer scale."""
    nominal, width = stem, stem if multiplier < 1 else round_to_eights(multiplier * stem)
    blocks: list[Block] = [Conv(cout=width, stride=2, activation=activation)]
    for row in (*rows, _conv(1, LAST)):
        if isinstance(row, MultiQueryAttention):
            blocks.append(row)
            continue
        cout = round_to_eights(multiplier * row.cout)
        if isinstance(row, Conv):
            blocks.append(replace(row, cout=cout, activation=activation))
        else:
            assert row.hidden is not None
            scaled = replace(
                row,
                cout=cout,
                hidden=round_to_eights(width * row.hidden / nominal),
                activation=activation,
                residual=row.stride == 1 and width == cout,
            )
            blocks.append(replace(scaled, layer_scale=layer_scale) if isinstance(scaled, UIB) else scaled)
        nominal, width = row.cout, cout
    head = MobileNetHead(hidden=HIDDEN, activation=activation, dropout=dropout)
    return Architecture(tuple(blocks), head, resolution=resolution)

"""The closed set of blocks and heads that architectures are made of.

Each is a frozen dataclass with absolute channel counts, its own validation, and one `lower` method that appends its ops to a
`Builder`. `output` gives the shape it puts out for a given input, checking that the two fit.

==================== ============================================== =====================================================
block                what it is                                     source
==================== ============================================== =====================================================
Conv                 k×k convolution                                stems and last layers of every family
Separable            depthwise, then pointwise, both activated      MobileNetV1 (arXiv 1704.04861) Table 1
UIB                  universal inverted bottleneck                  MobileNetV4 (arXiv 2404.10518) section 3; without a
                                                                    start depthwise it is MobileNetV2's and V3's block
FusedBottleneck      k×k expansion, then 1×1 projection             MobileNetV4's FusedIB
Fire                 1×1 squeeze, 1×1 and 3×3 expand, concatenated  SqueezeNet (arXiv 1602.07360) section 3
MultiQueryAttention  attention with shared keys and values          MobileNetV4 section 5; `shared=False` is MHSA
Pool                 maximum or average over a window               SqueezeNet
==================== ============================================== =====================================================
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from searchspace.builder import Builder, window_output
from searchspace.errors import ArchitectureError
from searchspace.graph import ACTIVATIONS, ActivationKind, Shape

Bypass = Literal["none", "identity", "conv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """Convolution, normalisation and (unless `activation` is None) activation. `padding` None means kernel // 2."""

    cout: int
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    activation: ActivationKind | None = "relu"

    kind: ClassVar[str] = "conv"

    def __post_init__(self) -> None:
        _at_least_one(cout=self.cout, stride=self.stride, kernel=self.kernel)
        _known_activation(self.activation)
        if self.padding is not None and not 0 <= self.padding < self.kernel:
            raise ArchitectureError(f"padding must be in [0, kernel), got {self.padding} with kernel={self.kernel}")

    def output(self, shape: Shape) -> Shape:
        """Shape put out for an input of `shape`."""
        return _strided(shape, self.cout, self.kernel, stride=self.stride, padding=self.padding)

    def lower(self, build: Builder, source: int) -> int:
        """Append the ops; returns the position of the last."""
        return build.conv(
            source,
            "conv",
            self.cout,
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
            width="cout",
            activation=self.activation,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Separable:
    """Depthwise separable convolution as in MobileNetV1: normalised and activated after both halves."""

    cout: int
    kernel: int = 3
    stride: int = 1
    activation: ActivationKind = "relu"

    kind: ClassVar[str] = "separable"

    def __post_init__(self) -> None:
        _at_least_one(cout=self.cout, stride=self.stride)
        _odd_kernel(kernel=self.kernel)
        _known_activation(self.activation)

    def output(self, shape: Shape) -> Shape:
        """Shape put out for an input of `shape`."""
        return _strided(shape, self.cout, self.kernel, stride=self.stride)

    def lower(self, build: Builder, source: int) -> int:
        """Append the ops; returns the position of the last."""
        x = build.conv(
            source,
            "depthwise",
            build.ops[source].shape.channels,
            kernel=self.kernel,
            stride=self.stride,
            depthwise=True,
            activation=self.activation,
        )
        return build.conv(x, "pointwise", self.cout, width="cout", activation=self.activation)


@dataclass(frozen=True, slots=True, kw_only=True)
class UIB:
    """Universal inverted bottleneck: optional depthwise, 1×1 expansion, optional depthwise, 1×1 projection.

    `dw_start` and `dw_mid` are kernels in pixels, 0 where the depthwise layer is left out. Activated after the expansion and the
    middle depthwise only. The stride sits on the middle depthwise where there is one, else on the first.

    ============ ======== ======
    instance     dw_start dw_mid
    ============ ======== ======
    IB           0        k        MobileNetV2's inverted bottleneck
    ConvNext     k        0
    ExtraDW      k        k
    FFN          0        0
    ============ ======== ======

    `hidden` None leaves the expansion out, as in the first rows of MobileNetV2 and V3 (then a middle depthwise is required).
    `se` is squeeze-excite's reduced width (0: none); it stands before the projection. `layer_scale` is the initial gamma.
    """

    cout: int
    hidden: int | None
    dw_start: int = 0
    dw_mid: int = 3
    stride: int = 1
    activation: ActivationKind = "relu"
    se: int = 0
    se_gate: ActivationKind = "hard_sigmoid"
    residual: bool = False
    layer_scale: float | None = None

    kind: ClassVar[str] = "uib"

    def __post_init__(self) -> None:
        _at_least_one(cout=self.cout, stride=self.stride)
        _odd_kernel(dw_start=self.dw_start, dw_mid=self.dw_mid, zero=True)
        _known_activation(self.activation)
        _valid_squeeze_excite(self.se, self.se_gate)
        if self.hidden is None and self.dw_mid == 0:
            raise ArchitectureError("a block without expansion (hidden=None) needs dw_mid, got dw_mid=0")
        if self.hidden is not None:
            _at_least_one(hidden=self.hidden)
        if self.stride > 1 and not (self.dw_start or self.dw_mid):
            raise ArchitectureError(
                f"stride {self.stride} needs a depthwise kernel, got dw_start={self.dw_start} and dw_mid={self.dw_mid}"
            )
        if self.residual and self.stride > 1:
            raise ArchitectureError(f"a residual needs stride 1, got stride={self.stride}")
        if self.layer_scale is not None and not self.layer_scale > 0:
            raise ArchitectureError(f"layer_scale must be above 0, got {self.layer_scale}")

    @property
    def variant(self) -> str:
        """Name of the instance in MobileNetV4's tables."""
        return {(0, 0): "FFN", (0, 1): "IB", (1, 0): "ConvNext", (1, 1): "ExtraDW"}[
            int(self.dw_start > 0), int(self.dw_mid > 0)
        ]

    def output(self, shape: Shape) -> Shape:
        """Shape put out for an input of `shape`."""
        _fits_residual(self.residual, shape.channels, self.cout)
        return _strided(shape, self.cout, self.dw_mid or self.dw_start or 1, stride=self.stride)

    def lower(self, build: Builder, source: int) -> int:
        """Append the ops; returns the position of the last."""
        x = source
        cin = build.ops[source].shape.channels
        if self.dw_start:
            stride = 1 if self.dw_mid else self.stride
            x = build.conv(x, "dw_start", cin, kernel=self.dw_start, stride=stride, depthwise=True)
        if self.hidden is not None:
            x = build.conv(x, "expand", self.hidden, width="hidden", activation=self.activation)
        if self.dw_mid:
            x = build.conv(
                x,
                "dw_mid",
                build.ops[x].shape.channels,
                kernel=self.dw_mid,
                stride=self.stride,
                depthwise=True,
                activation=self.activation,
            )
        if self.se:
            x = build.squeeze_excite(x, self.se, gate=self.se_gate)
        x = build.conv(x, "project", self.cout, width="cout")
        if self.layer_scale is not None:
            x = build.layer_scale(x, self.layer_scale)
        return build.add(x, source) if self.residual else x


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedBottleneck:
    """k×k convolution to `hidden` (with the stride, activated), then a linear 1×1 projection to `cout`."""

    cout: int
    hidden: int
    kernel: int = 3
    stride: int = 1
    activation: ActivationKind = "relu"
    se: int = 0
    se_gate: ActivationKind = "hard_sigmoid"
    residual: bool = False

    kind: ClassVar[str] = "fused"

    def __post_init__(self) -> None:
        _at_least_one(cout=self.cout, hidden=self.hidden, stride=self.stride)
        _odd_kernel(kernel=self.kernel)
        _known_activation(self.activation)
        _valid_squeeze_excite(self.se, self.se_gate)
        if self.residual and self.stride > 1:
            raise ArchitectureError(f"a residual needs stride 1, got stride={self.stride}")

    def output(self, shape: Shape) -> Shape:
        """Shape put out for an input of `shape`."""
        _fits_residual(self.residual, shape.channels, self.cout)
        return _strided(shape, self.cout, self.kernel, stride=self.stride)

    def lower(self, build: Builder, source: int) -> int:
        """Append the ops; returns the position of the last."""
        x = build.conv(
            source,
            "expand",
            self.hidden,
            kernel=self.kernel,
            stride=self.stride,
            width="hidden",
            activation=self.activation,
        )
        if self.se:
            x = build.squeeze_excite(x, self.se, gate=self.se_gate)
        x = build.conv(x, "project", self.cout, width="cout")
        return build.add(x, source) if self.residual else x


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """SqueezeNet's module: 1×1 to `squeeze`, then 1×1 to `expand1x1` beside 3×3 to `expand3x3`, concatenated.

    `bypass` adds the input to the result, as it is ("identity", needs equal widths) or through a 1×1 convolution ("conv").
    """

    squeeze: int
    expand1x1: int
    expand3x3: int
    bypass: Bypass = "none"
    activation: ActivationKind = "relu"

    kind: ClassVar[str] = "fire"

    def __post_init__(self) -> None:
        _at_least_one(squeeze=self.squeeze, expand1x1=self.expand1x1, expand3x3=self.expand3x3)
        _known_activation(self.activation)
        if self.bypass not in ("none", "identity", "conv"):
            raise ArchitectureError(f"bypass must be none, identity or conv, got {self.bypass!r}")

    @property
    def cout(self) -> int:
        """Channels after the concatenation."""
        return self.expand1x1 + self.expand3x3

    def output(self, shape: Shape) -> Shape:
        """Shape put out for an input of `shape`."""
        if self.bypass == "identity" and shape.channels != self.cout:
            raise ArchitectureError(
                f"an identity bypass needs as many channels in as out, got {shape.channels} in and {self.cout} out"
            )
        return shape._replace(channels=self.cout)

    def lower(self, build: Builder, source: int) -> int:
        """Append the ops; returns the position of the last."""
        shortcut = source
        if self.bypass == "conv":
            shortcut = build.conv(source, "bypass", self.cout, width="bypass")
        x = build.conv(source, "squeeze", self.squeeze, width="squeeze", activation=self.activation)
        one = build.conv(x, "expand1x1", self.expand1x1, width="expand1x1", activation=self.activation)
        three = build.conv(x, "expand3x3", self.expand3x3, kernel=3, width="expand3x3", activation=self.activation)
        x = build.concat((one, three))
        return x if self.bypass == "none" else build.add(x, shortcut)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiQueryAttention:
    """Mobile multi-query attention: `heads` query heads share one key and one value head (`shared`), or each has its own (MHSA).

    The input is normalised; with `kv_stride` 2, keys and values each pass a 3×3 depthwise convolution of stride 2 first.
    Projections have no bias and no normalisation. `key_dim` and `value_dim` are channels per head. `layer_scale` is the
    initial gamma, None for none.
    """

    heads: int
    key_dim: int
    value_dim: int
    kv_stride: int = 1
    shared: bool = True
    residual: bool = True
    layer_scale: float | None = 1e-5

    kind: ClassVar[str] = "mqa"

    def __post_init__(self) -> None:
        _at_least_one(heads=self.heads, key_dim=self.key_dim, value_dim=self.value_dim)
        if self.kv_stride not in (1, 2):
            raise ArchitectureError(f"kv_stride must be 1 or 2, got {self.kv_stride}")
        if self.layer_scale is not None and not self.layer_scale > 0:
            raise ArchitectureError(f"layer_scale must be above 0, got {self.layer_scale}")

    def output(self, shape: Shape) -> Shape:
        """Shape put out for an input of `shape`: the same."""
        return shape

    def lower(self, build: Builder, source: int) -> int:
        """Append the ops; returns the position of the last."""
        cin = build.ops[source].shape.channels
        kv_heads = 1 if self.shared else self.heads
        x = build.normalize(source, "norm")
        query = self._project(build, x, "query", self.heads * self.key_dim, width="key_dim")
        key = self._project(build, self._reduced(build, x, "key_down"), "key", kv_heads * self.key_dim, width="key_dim")
        value = self._project(
            build, self._reduced(build, x, "value_down"), "value", kv_heads * self.value_dim, width="value_dim"
        )
        x = build.attention(query, key, value, heads=self.heads, kv_heads=kv_heads)
        x = self._project(build, x, "project", cin)
        if self.layer_scale is not None:
            x = build.layer_scale(x, self.layer_scale)
        return build.add(x, source) if self.residual else x

    @staticmethod
    def _project(build: Builder, x: int, name: str, cout: int, *, width: str = "") -> int:
        return build.conv(x, name, cout, width=width, norm=False, bias=False)

    def _reduced(self, build: Builder, x: int, name: str) -> int:
        if self.kv_stride == 1:
            return x
        return build.conv(x, name, build.ops[x].shape.channels, kernel=3, stride=self.kv_stride, depthwise=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Maximum or average over a window; `ceil` rounds the output size up."""

    function: Literal["max", "avg"] = "max"
    kernel: int = 3
    stride: int = 2
    padding: int = 0
    ceil: bool = False

    kind: ClassVar[str] = "pool"

    def __post_init__(self) -> None:
        _at_least_one(kernel=self.kernel, stride=self.stride)
        if self.function not in ("max", "avg"):
            raise ArchitectureError(f"function must be max or avg, got {self.function!r}")
        if not 0 <= self.padding <= self.kernel // 2:
            raise ArchitectureError(f"padding must be in [0, kernel / 2], got {self.padding} with kernel={self.kernel}")

    def output(self, shape: Shape) -> Shape:
        """Shape put out for an input of `shape`."""
        height, wide = (
            window_output(side, self.kernel, self.stride, padding=self.padding, ceil=self.ceil) for side in shape[1:]
        )
        return Shape(shape.channels, height, wide)

    def lower(self, build: Builder, source: int) -> int:
        """Append the ops; returns the position of the last."""
        return build.pool(
            source, self.function, kernel=self.kernel, stride=self.stride, padding=self.padding, ceil=self.ceil
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicHead:
    """Global average pool, dropout, linear classifier (MobileNetV1 and V2)."""

    dropout: float = 0.0

    kind: ClassVar[str] = "classic"

    def __post_init__(self) -> None:
        _valid_rate(self.dropout)

    def lower(self, build: Builder, source: int, classes: int) -> int:
        """Append the ops; returns the position of the logits."""
        x = build.flatten(build.global_pool(source))
        return build.linear(build.dropout(x, self.dropout), "classifier", classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetHead:
    """Global average pool, 1×1 convolution to `hidden` on the pooled vector, activation, dropout, classifier.

    MobileNetV3's has a bias there and no normalisation (`norm` False), MobileNetV4's a normalisation.
    """

    hidden: int
    norm: bool = True
    activation: ActivationKind = "relu"
    dropout: float = 0.0

    kind: ClassVar[str] = "mobilenet"

    def __post_init__(self) -> None:
        _at_least_one(hidden=self.hidden)
        _known_activation(self.activation)
        _valid_rate(self.dropout)

    def lower(self, build: Builder, source: int, classes: int) -> int:
        """Append the ops; returns the position of the logits."""
        x = build.conv(
            build.global_pool(source),
            "hidden",
            self.hidden,
            width="hidden",
            norm=self.norm,
            activation=self.activation,
        )
        return build.linear(build.dropout(build.flatten(x), self.dropout), "classifier", classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class NinHead:
    """SqueezeNet's head: dropout, 1×1 convolution to the classes (with bias, activated), global average pool."""

    dropout: float = 0.5
    activation: ActivationKind | None = "relu"

    kind: ClassVar[str] = "nin"

    def __post_init__(self) -> None:
        _known_activation(self.activation)
        _valid_rate(self.dropout)

    def lower(self, build: Builder, source: int, classes: int) -> int:
        """Append the ops; returns the position of the logits."""
        x = build.dropout(source, self.dropout)
        x = build.conv(x, "classifier", classes, norm=False, activation=self.activation)
        return build.flatten(build.global_pool(x))


Block = Conv | Separable | UIB | FusedBottleneck | Fire | MultiQueryAttention | Pool
Head = ClassicHead | MobileNetHead | NinHead
BLOCKS: dict[str, type[Block]] = {
    block.kind: block for block in (Conv, Separable, UIB, FusedBottleneck, Fire, MultiQueryAttention, Pool)
}
HEADS: dict[str, type[Head]] = {head.kind: head for head in (ClassicHead, MobileNetHead, NinHead)}


def _strided(shape: Shape, cout: int, kernel: int, *, stride: int, padding: int | None = None) -> Shape:
    padding = kernel // 2 if padding is None else padding
    return Shape(
        cout,
        window_output(shape.height, kernel, stride, padding=padding),
        window_output(shape.width, kernel, stride, padding=padding),
    )


def _at_least_one(**counts: int) -> None:
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ArchitectureError(f"{name} must be a whole number from 1, got {count!r}")


def _odd_kernel(*, zero: bool = False, **kernels: int) -> None:
    for name, kernel in kernels.items():
        if kernel not in (3, 5, 7) and not (kernel == 1 or (zero and kernel == 0)):
            raise ArchitectureError(f"{name} must be {'0, ' if zero else ''}1, 3, 5 or 7, got {kernel!r}")


def _known_activation(activation: str | None) -> None:
    if activation is not None and activation not in ACTIVATIONS:
        raise ArchitectureError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")


def _valid_squeeze_excite(squeeze: int, gate: str) -> None:
    if squeeze:
        _at_least_one(se=squeeze)
    if gate not in ("hard_sigmoid", "sigmoid"):
        raise ArchitectureError(f"se_gate must be hard_sigmoid or sigmoid, got {gate!r}")


def _fits_residual(residual: bool, cin: int, cout: int) -> None:
    if residual and cin != cout:
        raise ArchitectureError(f"a residual needs as many channels in as out, got {cin} in and {cout} out")


def _valid_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ArchitectureError(f"dropout must be in [0, 1), got {rate}")

"""What a space may choose for each kind of block: ratios and kernels, turned into blocks with absolute channel counts.

Ratios exist only here. A `sample` method says once what can be chosen; drawing, counting and testing membership all use it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from searchspace.blocks import UIB, Block, Conv, Fire, FusedBottleneck, MultiQueryAttention, Pool, Separable
from searchspace.errors import SpaceError
from searchspace.graph import ActivationKind
from searchspace.sampling import Ask

Kernels = tuple[int, ...]
Ratios = tuple[float, ...]


class Place(NamedTuple):
    """Where a block is to stand: channels in and out, stride, the stage's activation.

    Widths computed from ratios are multiples of `divisor`.
    """

    cin: int
    cout: int
    stride: int
    activation: ActivationKind
    divisor: int = 8

    @property
    def residual(self) -> bool:
        """Whether input and output have one shape, so that a shortcut can be added."""
        return self.stride == 1 and self.cin == self.cout

    def scaled(self, channels: int, ratio: float) -> int:
        """`channels` times `ratio`, rounded to a multiple of the divisor, at least one divisor."""
        return max(self.divisor, round(channels * ratio / self.divisor) * self.divisor)


@dataclass(frozen=True, slots=True)
class ConvOptions:
    """Plain convolutions."""

    kernel: Kernels = (3,)

    opens_stage: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _each("kernel", self.kernel, lambda kernel: kernel in (1, 3, 5, 7), "1, 3, 5 or 7")

    def sample(self, ask: Ask, place: Place) -> tuple[Block, ...]:
        """Blocks at `place`."""
        kernel = ask.ordered("kernel", self.kernel)
        return (Conv(cout=place.cout, kernel=kernel, stride=place.stride, activation=place.activation),)


@dataclass(frozen=True, slots=True)
class SeparableOptions:
    """Depthwise separable convolutions."""

    kernel: Kernels = (3,)

    opens_stage: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _each("kernel", self.kernel, lambda kernel: kernel in (3, 5, 7), "3, 5 or 7")

    def sample(self, ask: Ask, place: Place) -> tuple[Block, ...]:
        """Blocks at `place`."""
        kernel = ask.ordered("kernel", self.kernel)
        return (Separable(cout=place.cout, kernel=kernel, stride=place.stride, activation=place.activation),)


@dataclass(frozen=True, slots=True)
class UIBOptions:
    """Universal inverted bottlenecks. `expansion` multiplies the channels in, `se` the hidden ones (0: no squeeze-excite)."""

    expansion: Ratios = (4.0,)
    dw_start: Kernels = (0,)
    dw_mid: Kernels = (3,)
    se: Ratios = (0.0,)

    opens_stage: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _each("expansion", self.expansion, lambda ratio: ratio > 0, "above 0")
        for name in ("dw_start", "dw_mid"):
            _each(name, getattr(self, name), lambda kernel: kernel in (0, 3, 5, 7), "0, 3, 5 or 7")
        _each("se", self.se, lambda ratio: 0 <= ratio <= 1, "in [0, 1]")
        if not (any(self.dw_start) or any(self.dw_mid)):
            raise SpaceError("dw_start: it or dw_mid needs a kernel above 0, both have only 0")

    def sample(self, ask: Ask, place: Place) -> tuple[Block, ...]:
        """Blocks at `place`. A stride needs a depthwise layer, so there the choice without one does not exist."""
        hidden = place.scaled(place.cin, ask.ordered("expansion", self.expansion))
        start, mid, strided = self.dw_start, self.dw_mid, place.stride > 1
        if strided and not any(mid):
            dw_start = ask.ordered("dw_start_strided", tuple(kernel for kernel in start if kernel))
        else:
            dw_start = ask.ordered("dw_start", start)
        if strided and not dw_start and 0 in mid:
            dw_mid = ask.ordered("dw_mid_strided", tuple(kernel for kernel in mid if kernel))
        else:
            dw_mid = ask.ordered("dw_mid", mid)
        squeeze = ask.ordered("se", self.se)
        return (
            UIB(
                cout=place.cout,
                hidden=hidden,
                dw_start=dw_start,
                dw_mid=dw_mid,
                stride=place.stride,
                activation=place.activation,
                se=place.scaled(hidden, squeeze) if squeeze else 0,
                residual=place.residual,
            ),
        )


@dataclass(frozen=True, slots=True)
class FusedOptions:
    """Fused bottlenecks. `expansion` multiplies the channels in, `se` the hidden ones."""

    expansion: Ratios = (4.0,)
    kernel: Kernels = (3,)
    se: Ratios = (0.0,)

    opens_stage: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _each("expansion", self.expansion, lambda ratio: ratio > 0, "above 0")
        _each("kernel", self.kernel, lambda kernel: kernel in (3, 5, 7), "3, 5 or 7")
        _each("se", self.se, lambda ratio: 0 <= ratio <= 1, "in [0, 1]")

    def sample(self, ask: Ask, place: Place) -> tuple[Block, ...]:
        """Blocks at `place`."""
        hidden = place.scaled(place.cin, ask.ordered("expansion", self.expansion))
        kernel = ask.ordered("kernel", self.kernel)
        squeeze = ask.ordered("se", self.se)
        return (
            FusedBottleneck(
                cout=place.cout,
                hidden=hidden,
                kernel=kernel,
                stride=place.stride,
                activation=place.activation,
                se=place.scaled(hidden, squeeze) if squeeze else 0,
                residual=place.residual,
            ),
        )


@dataclass(frozen=True, slots=True)
class FireOptions:
    """Fire modules. `squeeze` and `expand3x3` are shares of the channels out; where there is a stride, a max pool goes before.

    An identity bypass exists only where channels in and out agree.
    """

    squeeze: Ratios = (0.125,)
    expand3x3: Ratios = (0.5,)
    bypass: tuple[str, ...] = ("none",)

    opens_stage: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _each("squeeze", self.squeeze, lambda ratio: 0 < ratio <= 1, "in (0, 1]")
        _each("expand3x3", self.expand3x3, lambda ratio: 0 < ratio < 1, "in (0, 1)")
        _each("bypass", self.bypass, lambda kind: kind in ("none", "identity", "conv"), "none, identity or conv")
        if self.bypass == ("identity",):
            raise SpaceError(
                "bypass: identity needs a second choice for blocks that change the width; add none or conv"
            )

    def sample(self, ask: Ask, place: Place) -> tuple[Block, ...]:
        """Blocks at `place`."""
        squeeze = place.scaled(place.cout, ask.ordered("squeeze", self.squeeze))
        three = min(place.scaled(place.cout, ask.ordered("expand3x3", self.expand3x3)), place.cout - place.divisor)
        if place.cin == place.cout:
            bypass = ask.choice("bypass", self.bypass)
        else:
            bypass = ask.choice("bypass_resized", tuple(kind for kind in self.bypass if kind != "identity"))
        fire = Fire(
            squeeze=squeeze,
            expand1x1=place.cout - three,
            expand3x3=three,
            bypass=bypass,  # type: ignore[arg-type]
            activation=place.activation,
        )
        return (fire,) if place.stride == 1 else (Pool(kernel=3, stride=place.stride, padding=1), fire)


@dataclass(frozen=True, slots=True)
class AttentionOptions:
    """Mobile multi-query attention; it keeps the width, so it never opens a stage. `key_dim` is also the value's."""

    heads: tuple[int, ...] = (4,)
    key_dim: tuple[int, ...] = (16,)
    kv_stride: tuple[int, ...] = (1,)

    opens_stage: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _each("heads", self.heads, lambda count: count >= 1, "from 1")
        _each("key_dim", self.key_dim, lambda count: count >= 1, "from 1")
        _each("kv_stride", self.kv_stride, lambda stride: stride in (1, 2), "1 or 2")

    def sample(self, ask: Ask, place: Place) -> tuple[Block, ...]:
        """Blocks at `place`."""
        heads = ask.ordered("heads", self.heads)
        dim = ask.ordered("key_dim", self.key_dim)
        stride = ask.ordered("kv_stride", self.kv_stride)
        return (MultiQueryAttention(heads=heads, key_dim=dim, value_dim=dim, kv_stride=stride),)


Options = ConvOptions | SeparableOptions | UIBOptions | FusedOptions | FireOptions | AttentionOptions
OPTIONS: dict[str, type[Options]] = {
    "conv": ConvOptions,
    "separable": SeparableOptions,
    "uib": UIBOptions,
    "fused": FusedOptions,
    "fire": FireOptions,
    "mqa": AttentionOptions,
}


def _each(name: str, values: tuple[object, ...], holds: Callable[..., bool], what: str) -> None:
    """Check every choice of a field; the message names the field."""
    if not values:
        raise SpaceError(f"{name}: needs at least one choice, got none")
    if len(set(values)) < len(values):
        raise SpaceError(f"{name}: choices must differ, got {list(values)}")
    for value in values:
        try:
            fine = holds(value) and not isinstance(value, bool)
        except TypeError:
            fine = False
        if not fine:
            raise SpaceError(f"{name}: must be {what}, got {value!r}")

"""Networks to measure so that a latency model knows all kinds of kernels, whatever space it will be used on."""

import contextlib
import dataclasses
import random
from collections.abc import Iterator

from searchspace.architecture import Architecture, lower
from searchspace.blocks import (
    UIB,
    Block,
    ClassicHead,
    Conv,
    Fire,
    FusedBottleneck,
    Head,
    MobileNetHead,
    MultiQueryAttention,
    NinHead,
    Pool,
    Separable,
)
from searchspace.errors import ArchitectureError
from searchspace.graph import ActivationKind, Norm

RESOLUTIONS = (32, 48, 64, 96, 128, 160, 192, 224)
ACTIVATIONS: dict[ActivationKind, int] = {"relu": 4, "relu6": 2, "hard_swish": 3, "silu": 1, "gelu": 1}  # how often
UNALIGNED_SHARE = 0.25  # of networks have widths that no runtime likes, as trimming makes them
TRIMMED_SHARE = (
    0.12  # of networks are small ones whose time goes into such widths, which hide among others in large ones
)
ATTENTION_SHARE = 0.2  # of networks have some
SHARES = (1, 0.75, 1.25, 0.6, 0.9, 1.1)  # of a network's resolution, at which it is measured as well
WIDTHS = ((24, 40, 80, 128, 192, 320), (32, 64, 128, 256, 512, 1024))  # by stage, of lean networks and of older ones


def varied_architectures(seed: int) -> Iterator[Architecture]:
    """An endless, seeded sequence of pyramids of blocks: every kind, window, activation, head and many widths."""
    source = random.Random(seed)
    while True:
        yield _trimmed(source) if source.random() < TRIMMED_SHARE else _Sampler(source).architecture()


def resized(architecture: Architecture) -> Iterator[Architecture]:
    """The same network at its own resolution and around it: enough for each of its kinds of kernels to be known."""
    for share in SHARES:
        with contextlib.suppress(ArchitectureError):
            other = dataclasses.replace(architecture, resolution=max(1, round(share * architecture.resolution)))
            lower(other)
            yield other


def _trimmed(source: random.Random) -> Architecture:
    """A few bottlenecks of unaligned hidden widths between layers of aligned ones."""
    resolution, width = source.choice((32, 48, 64, 96, 128)), source.choice((16, 24, 32, 48))
    pixels = resolution // 2
    blocks: list[Block] = [Conv(cout=width, stride=2)]
    for _ in range(source.randint(1, 3)):
        hidden = source.choice([one for one in range(9, 160) if one % 4])
        start, middle = source.choice(((0, 1), (0, 1), (1, 1), (1, 0)))
        windows = [source.choice((3, 3, 3, 5, 7)) for _ in range(2)]
        stride = source.choice((1, 1, 2)) if pixels >= 8 else 1
        blocks.append(
            UIB(
                cout=width,
                hidden=hidden,
                dw_start=start * windows[0],
                dw_mid=middle * windows[1],
                stride=stride,
                activation=source.choice(("relu", "relu", "hard_swish")),
                residual=stride == 1 and source.random() < 0.5,
            )
        )
        pixels = -(-pixels // stride)
    return Architecture((*blocks, Conv(cout=64, stride=2)), resolution=resolution, classes=10)


class _Sampler:
    """Decisions that hold for one network: its scale, its activation, how its widths are rounded."""

    def __init__(self, source: random.Random) -> None:
        self.source = source
        self.resolution = source.choice(RESOLUTIONS)
        self.activation = source.choices(list(ACTIVATIONS), list(ACTIVATIONS.values()))[0]
        self.squeeze_excite = source.random() < 0.35
        self.divisor = 1 if source.random() < UNALIGNED_SHARE else source.choice((4, 8, 8, 8))
        self.scale = source.uniform(0.35, 1.4) if self.resolution > 100 else source.uniform(0.5, 2.0)

    def architecture(self) -> Architecture:
        stem = Conv(
            cout=self._width(24),
            kernel=self.source.choice((3, 3, 3, 5, 7)),
            stride=2 if self.resolution > 40 else 1,
            activation=self.activation,
        )
        blocks: list[Block] = [stem]
        cin, pixels = stem.cout, self.resolution // stem.stride
        kinds = self.source.sample(("separable", "uib", "uib", "fused", "fire"), 3)
        if self.source.random() < ATTENTION_SHARE:
            kinds[0] = "attention"
        widths = self.source.choices(WIDTHS, (3, 1))[0]
        for width in widths[: self.source.randint(3, 6)]:
            stride = 2 if pixels >= 8 else 1
            cout = self._width(width)
            for index in range(self.source.randint(1, 3)):
                kind = self.source.choice(kinds)
                blocks += self._blocks(kind, cin, cout, stride=1 if index else stride, pixels=pixels)
                cin = blocks[-1].cout if not isinstance(blocks[-1], MultiQueryAttention | Pool) else cin
                pixels = pixels if index else -(-pixels // stride)
        norm = None if self.source.random() < 0.1 else Norm()
        return Architecture(
            tuple(blocks), self._head(), self.resolution, classes=self.source.choice((2, 10, 100, 1000)), norm=norm
        )

    def _width(self, usual: float) -> int:
        drawn = usual * self.scale * self.source.uniform(0.7, 1.4)
        return max(self.divisor, 4, round(drawn / self.divisor) * self.divisor)

    def _blocks(self, kind: str, cin: int, cout: int, *, stride: int, pixels: int) -> tuple[Block, ...]:
        if kind == "fire" or (kind == "attention" and pixels > 28):
            return self._fire(cin, cout, stride)
        if kind == "attention" and stride == 1 and cin == cout:
            key_dim = self.source.choice((16, 32))
            attention = MultiQueryAttention(
                heads=self.source.choice((2, 4)),
                key_dim=key_dim,
                value_dim=key_dim,
                kv_stride=self.source.choice((1, 2)) if pixels >= 4 else 1,
            )
            return (attention,)
        if kind == "separable":
            return (Separable(cout=cout, kernel=self._window(), stride=stride, activation=self.activation),)
        hidden = self._width(cin * self.source.choice((1, 2, 3, 4, 6)) / self.scale)
        residual = stride == 1 and cin == cout
        se = max(4, hidden // 4) if self.squeeze_excite and self.source.random() < 0.5 else 0
        gate: ActivationKind = self.source.choice(("hard_sigmoid", "hard_sigmoid", "sigmoid"))
        if kind == "fused":
            fused = FusedBottleneck(
                cout=cout,
                hidden=hidden,
                stride=stride,
                activation=self.activation,
                se=se,
                se_gate=gate,
                residual=residual,
            )
            return (fused,)
        start, middle = self.source.choice(((0, 1), (0, 1), (1, 1), (1, 0), (0, 0) if stride == 1 else (0, 1)))
        bottleneck = UIB(
            cout=cout,
            hidden=hidden,
            dw_start=start * self._window(),
            dw_mid=middle * self._window(),
            stride=stride,
            activation=self.activation,
            se=se,
            se_gate=gate,
            residual=residual,
        )
        return (bottleneck,)

    def _fire(self, cin: int, cout: int, stride: int) -> tuple[Block, ...]:
        three = max(1, round(cout * self.source.choice((0.25, 0.5, 0.75)) / self.divisor)) * self.divisor
        three = min(three, cout - 1)
        bypasses = ["none", "conv"] + (["identity"] if cin == cout else [])
        fire = Fire(
            squeeze=self._width(cout * self.source.choice((0.125, 0.25, 0.5)) / self.scale),
            expand1x1=cout - three,
            expand3x3=three,
            bypass=self.source.choice(bypasses),  # type: ignore[arg-type]
            activation=self.activation,
        )
        pool = Pool(function=self.source.choice(("max", "max", "avg")), kernel=3, stride=stride, padding=1)
        return (pool, fire) if stride > 1 else (fire,)

    def _window(self) -> int:
        return self.source.choice((3, 3, 5, 7))

    def _head(self) -> Head:
        match self.source.choice(("classic", "classic", "mobilenet", "nin")):
            case "mobilenet":
                return MobileNetHead(
                    hidden=self._width(960), norm=self.source.random() < 0.5, activation=self.activation
                )
            case "nin":
                return NinHead()
        return ClassicHead()

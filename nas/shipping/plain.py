"""The blocks as plain torch modules that need nothing of this package: `model.py` files are made of their source.

Submodules have the names that `searchspace.network` gives them, so a checkpoint's tensors fit as they are. `eps` is the batch
normalisation's epsilon; None: there is none, and convolutions have biases instead.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
}


class Convolution(nn.Conv2d):
    """Convolution, then batch normalisation (`eps`) and activation (`act`), each if given. `groups` above 1 is depthwise."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = True,
        eps: float | None = None,
        act: str | None = None,
    ) -> None:
        padding = kernel // 2 if padding is None else padding
        super().__init__(cin, cout, kernel, stride, padding, groups=groups, bias=bias and eps is None)
        self.norm = None if eps is None else nn.BatchNorm2d(cout, eps=eps)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H', W')."""
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.act is None else ACTIVATIONS[self.act](x)


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole map says of it."""

    def __init__(self, channels: int, squeeze: int, *, gate: str) -> None:
        super().__init__()
        self.reduce = Convolution(channels, squeeze, act="relu")
        self.expand = Convolution(squeeze, channels, act=gate)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        factors: Tensor = self.expand(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * factors


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return x * self.weight.view(-1, 1, 1)


class Conv(nn.Module):
    """A convolution by itself."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        eps: float | None,
        act: str | None,
    ) -> None:
        super().__init__()
        self.conv = Convolution(cin, cout, kernel, stride=stride, padding=padding, eps=eps, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H', W')."""
        y: Tensor = self.conv(x)
        return y


class Separable(nn.Module):
    """Depthwise, then pointwise convolution (MobileNetV1)."""

    def __init__(
        self, cin: int, cout: int, *, kernel: int = 3, stride: int = 1, eps: float | None, act: str | None
    ) -> None:
        super().__init__()
        self.depthwise = Convolution(cin, cin, kernel, stride=stride, groups=cin, eps=eps, act=act)
        self.pointwise = Convolution(cin, cout, eps=eps, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H', W')."""
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


class UIB(nn.Module):
    """Universal inverted bottleneck (MobileNetV2 to V4): depthwise, expansion, depthwise, squeeze-excite, projection.

    Where `dw_start`, `dw_mid` or `se` is 0, or `hidden` None, that step is left out.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        *,
        hidden: int | None,
        dw_start: int = 0,
        dw_mid: int = 0,
        stride: int = 1,
        se: int = 0,
        gate: str = "hard_sigmoid",
        scaled: bool = False,
        residual: bool = False,
        eps: float | None,
        act: str,
    ) -> None:
        super().__init__()
        wide = cin if hidden is None else hidden
        first = 1 if dw_mid else stride
        self.dw_start = Convolution(cin, cin, dw_start, stride=first, groups=cin, eps=eps) if dw_start else None
        self.expand = None if hidden is None else Convolution(cin, wide, eps=eps, act=act)
        self.dw_mid = Convolution(wide, wide, dw_mid, stride=stride, groups=wide, eps=eps, act=act) if dw_mid else None
        self.se = SqueezeExcite(wide, se, gate=gate) if se else None
        self.project = Convolution(wide, cout, eps=eps)
        self.layer_scale = LayerScale(cout) if scaled else None
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H', W')."""
        y = x
        for step in (self.dw_start, self.expand, self.dw_mid, self.se, self.project, self.layer_scale):
            if step is not None:
                y = step(y)
        return y + x if self.residual else y


class FusedBottleneck(nn.Module):
    """A convolution to `hidden`, then a projection (MobileNetV4)."""

    def __init__(
        self,
        cin: int,
        cout: int,
        *,
        hidden: int,
        kernel: int = 3,
        stride: int = 1,
        se: int = 0,
        gate: str = "hard_sigmoid",
        residual: bool = False,
        eps: float | None,
        act: str,
    ) -> None:
        super().__init__()
        self.expand = Convolution(cin, hidden, kernel, stride=stride, eps=eps, act=act)
        self.se = SqueezeExcite(hidden, se, gate=gate) if se else None
        self.project = Convolution(hidden, cout, eps=eps)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, cout, H', W')."""
        y: Tensor = self.expand(x)
        if self.se is not None:
            y = self.se(y)
        y = self.project(y)
        return y + x if self.residual else y


class Fire(nn.Module):
    """Squeeze, then 1×1 and 3×3 side by side (SqueezeNet); `bypass` adds the input: none, identity or conv."""

    def __init__(
        self, cin: int, *, squeeze: int, one: int, three: int, bypass: str = "none", eps: float | None, act: str
    ) -> None:
        super().__init__()
        self.bypass = Convolution(cin, one + three, eps=eps) if bypass == "conv" else None
        self.squeeze = Convolution(cin, squeeze, eps=eps, act=act)
        self.expand1x1 = Convolution(squeeze, one, eps=eps, act=act)
        self.expand3x3 = Convolution(squeeze, three, 3, eps=eps, act=act)
        self.identity = bypass == "identity"

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) to (N, one + three, H, W)."""
        small = self.squeeze(x)
        y: Tensor = torch.cat((self.expand1x1(small), self.expand3x3(small)), dim=1)
        if self.bypass is not None:
            y = y + self.bypass(x)
        return y + x if self.identity else y


class Attention(nn.Module):
    """Attention over the positions of a map; `kv_heads` 1 shares keys and values between the heads (MobileNetV4)."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        kv_heads: int,
        key_dim: int,
        value_dim: int,
        kv_stride: int = 1,
        scaled: bool = False,
        residual: bool = True,
        eps: float | None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.norm = None if eps is None else nn.BatchNorm2d(channels, eps=eps)
        self.query = Convolution(channels, heads * key_dim, bias=False)
        self.key_down = self.value_down = None
        if kv_stride > 1:
            self.key_down = Convolution(channels, channels, 3, stride=kv_stride, groups=channels, eps=eps)
            self.value_down = Convolution(channels, channels, 3, stride=kv_stride, groups=channels, eps=eps)
        self.key = Convolution(channels, kv_heads * key_dim, bias=False)
        self.value = Convolution(channels, kv_heads * value_dim, bias=False)
        self.project = Convolution(heads * value_dim, channels, bias=False)
        self.layer_scale = LayerScale(channels) if scaled else None
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        z = x if self.norm is None else self.norm(x)
        query = self._tokens(self.query(z), self.heads)
        key = self._tokens(self.key(z if self.key_down is None else self.key_down(z)), self.kv_heads)
        value = self._tokens(self.value(z if self.value_down is None else self.value_down(z)), self.kv_heads)
        key, value = key.expand(-1, self.heads, -1, -1), value.expand(-1, self.heads, -1, -1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.project(mixed.transpose(2, 3).reshape(x.shape[0], -1, *x.shape[2:]))
        if self.layer_scale is not None:
            y = self.layer_scale(y)
        return y + x if self.residual else y

    def _tokens(self, x: Tensor, heads: int) -> Tensor:
        """(N, heads × size, H, W) to (N, heads, H × W, size)."""
        return x.reshape(x.shape[0], heads, x.shape[1] // heads, -1).transpose(2, 3)


class ClassicHead(nn.Module):
    """Average over the map, then the classifier (MobileNetV1 and V2)."""

    def __init__(self, cin: int, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(cin, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, classes)."""
        y: Tensor = self.classifier(self.dropout(x.mean((2, 3))))
        return y


class MobileNetHead(nn.Module):
    """Average over the map, a hidden layer, then the classifier (MobileNetV3 and V4)."""

    def __init__(
        self, cin: int, classes: int, *, hidden: int, dropout: float = 0.0, eps: float | None, act: str
    ) -> None:
        super().__init__()
        self.hidden = Convolution(cin, hidden, eps=eps, act=act)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, classes)."""
        x = self.hidden(x.mean((2, 3), keepdim=True))
        y: Tensor = self.classifier(self.dropout(x.flatten(1)))
        return y


class NinHead(nn.Module):
    """A convolution to the classes, then the average over the map (SqueezeNet)."""

    def __init__(self, cin: int, classes: int, *, dropout: float = 0.0, act: str | None) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = Convolution(cin, classes, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, classes)."""
        y: Tensor = self.classifier(self.dropout(x))
        return y.mean((2, 3))

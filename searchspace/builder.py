"""Putting a graph together: each method appends one op (or the few of one unit) and tracks shapes."""

from collections.abc import Sequence
from typing import Literal

from searchspace.errors import ArchitectureError
from searchspace.graph import (
    Activation,
    ActivationKind,
    Add,
    Attention,
    Concat,
    Conv,
    Dropout,
    Flatten,
    GlobalPool,
    Input,
    LayerScale,
    Linear,
    Norm,
    Normalize,
    Op,
    Pool,
    Scale,
    Shape,
)


class Builder:
    """Appends ops to a graph in the making, tracking shapes. Methods return the position of the op they added."""

    def __init__(self, shape: Shape, *, norm: Norm | None) -> None:
        self.ops: list[Op] = [Input("input", (), shape)]
        self.norm = norm
        self.prefix = ""

    def conv(  # one op's worth of settings
        self,
        source: int,
        name: str,
        cout: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        depthwise: bool = False,
        width: str = "",
        norm: bool = True,
        bias: bool = True,
        activation: ActivationKind | None = None,
    ) -> int:
        """Convolution, then the architecture's normalisation (unless `norm` is False) and an activation if named.

        `padding` None keeps the size at stride 1. `width` is the field of the block that sets `cout`. Where there is no
        normalisation there is a bias, unless `bias` is False.
        """
        cin, height, wide = self.ops[source].shape
        padding = kernel // 2 if padding is None else padding
        follows = self.norm if norm else None
        shape = Shape(
            cout,
            window_output(height, kernel, stride, padding=padding),
            window_output(wide, kernel, stride, padding=padding),
        )
        position = self._append(
            Conv(
                self.prefix + name,
                (source,),
                shape,
                self.prefix + width if width else "",
                cin=cin,
                kernel=kernel,
                stride=stride,
                padding=padding,
                groups=cin if depthwise else 1,
                bias=bias and follows is None,
                norm=follows,
            )
        )
        return self.activate(position, name, activation) if activation else position

    def linear(self, source: int, name: str, cout: int, *, width: str = "") -> int:
        """Fully connected layer on a flattened input."""
        return self._append(
            Linear(
                self.prefix + name,
                (source,),
                Shape(cout, 1, 1),
                self.prefix + width if width else "",
                cin=self.ops[source].shape.channels,
            )
        )

    def normalize(self, source: int, name: str) -> int:
        """Batch normalisation by itself; nothing where the architecture has none."""
        if self.norm is None:
            return source
        return self._append(Normalize(self.prefix + name, (source,), self.ops[source].shape, norm=self.norm))

    def activate(self, source: int, name: str, function: ActivationKind) -> int:
        """Non-linearity after the op called `name`."""
        return self._append(
            Activation(f"{self.prefix}{name}.{function}", (source,), self.ops[source].shape, function=function)
        )

    def squeeze_excite(self, source: int, squeeze: int, *, gate: ActivationKind) -> int:
        """Squeeze-excite: pool, reduce to `squeeze` channels, ReLU, expand, `gate`, scale (both 1×1 with bias)."""
        pooled = self._append(GlobalPool(self.prefix + "se.pool", (source,), self._pooled(source)))
        reduced = self.conv(pooled, "se.reduce", squeeze, width="se", norm=False, activation="relu")
        expanded = self.conv(reduced, "se.expand", self.ops[source].shape.channels, norm=False, activation=gate)
        return self._append(Scale(self.prefix + "se.scale", (source, expanded), self.ops[source].shape))

    def add(self, branch: int, shortcut: int) -> int:
        """Residual sum."""
        return self._append(Add(self.prefix + "add", (branch, shortcut), self.ops[branch].shape))

    def concat(self, sources: Sequence[int]) -> int:
        """Concatenation along the channels."""
        first = self.ops[sources[0]].shape
        channels = sum(self.ops[source].shape.channels for source in sources)
        return self._append(Concat(self.prefix + "concat", tuple(sources), first._replace(channels=channels)))

    def layer_scale(self, source: int, initial: float) -> int:
        """Trainable factor per channel."""
        return self._append(LayerScale(self.prefix + "layer_scale", (source,), self.ops[source].shape, initial=initial))

    def pool(
        self, source: int, function: Literal["max", "avg"], *, kernel: int, stride: int, padding: int, ceil: bool
    ) -> int:
        """Windowed pool."""
        channels, height, wide = self.ops[source].shape
        shape = Shape(
            channels,
            window_output(height, kernel, stride, padding=padding, ceil=ceil),
            window_output(wide, kernel, stride, padding=padding, ceil=ceil),
        )
        return self._append(
            Pool(
                self.prefix + "pool",
                (source,),
                shape,
                function=function,
                kernel=kernel,
                stride=stride,
                padding=padding,
                ceil=ceil,
            )
        )

    def global_pool(self, source: int) -> int:
        """Average over the whole map."""
        return self._append(GlobalPool(self.prefix + "pool", (source,), self._pooled(source)))

    def flatten(self, source: int) -> int:
        """Drop height and width, which are 1."""
        return self._append(Flatten(self.prefix + "flatten", (source,), self.ops[source].shape))

    def dropout(self, source: int, rate: float) -> int:
        """Dropout; nothing at rate 0."""
        if rate == 0:
            return source
        return self._append(Dropout(self.prefix + "dropout", (source,), self.ops[source].shape, rate=rate))

    def attention(self, query: int, key: int, value: int, *, heads: int, kv_heads: int) -> int:
        """Scaled dot-product attention of `heads` query heads over `kv_heads` key and value heads."""
        queries, keys, values = (self.ops[source].shape for source in (query, key, value))
        value_dim = values.channels // kv_heads
        return self._append(
            Attention(
                self.prefix + "attention",
                (query, key, value),
                queries._replace(channels=heads * value_dim),
                heads=heads,
                kv_heads=kv_heads,
                key_dim=keys.channels // kv_heads,
                value_dim=value_dim,
                kv_tokens=keys.height * keys.width,
            )
        )

    def _pooled(self, source: int) -> Shape:
        return Shape(self.ops[source].shape.channels, 1, 1)

    def _append(self, op: Op) -> int:
        self.ops.append(op)
        return len(self.ops) - 1


def window_output(size: int, kernel: int, stride: int, *, padding: int, ceil: bool = False) -> int:
    """Pixels a sliding window puts out along one side of `size` pixels (torch's rule, also for `ceil`).

    Raises:
        ArchitectureError: the window does not fit into the padded side.
    """
    span = size + 2 * padding - kernel
    if span < 0:
        raise ArchitectureError(
            f"a window of {kernel} px must fit into {size} px padded by {padding}: "
            "use a smaller kernel, fewer strides or a larger resolution"
        )
    if not ceil:
        return span // stride + 1
    output = -(-span // stride) + 1
    return output - 1 if (output - 1) * stride >= size + padding else output  # the last window starts inside

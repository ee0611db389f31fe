"""The one lowered form of a network: a tuple of a few kinds of frozen ops, in execution order.

Everything that needs to know what a network computes reads this: the torch module, the ONNX model, the cost, the kernels
that the runtime executes and the widths that move together. Nothing is traced or pattern-matched back.

Counting rules (those of the published tables): one multiply-accumulate is one MAC; convolutions, linear layers and the two
products of attention count, nothing else does. Parameters are what training changes: weights, biases, the two vectors of a
batch normalisation, layer-scale gammas.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from searchspace.errors import ArchitectureError

ActivationKind = Literal["relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu", "gelu"]
ACTIVATIONS: tuple[ActivationKind, ...] = ("relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid", "silu", "gelu")

BYTES_PER_VALUE = 4  # float32


class Shape(NamedTuple):
    """Size of one image's feature map, without the batch: channels, height and width in pixels."""

    channels: int
    height: int
    width: int

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return self.channels * self.height * self.width


@dataclass(frozen=True, slots=True)
class Norm:
    """Batch normalisation: `epsilon` is added to the variance, `momentum` is the share of a new batch's statistics."""

    epsilon: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ArchitectureError(f"norm: epsilon must be above 0, got {self.epsilon}")
        if not 0 < self.momentum <= 1:
            raise ArchitectureError(f"norm: momentum must be in (0, 1], got {self.momentum}")


@dataclass(frozen=True, slots=True)
class Op:
    """One step. `inputs` are positions in the graph's ops; `shape` is what it puts out.

    `width` is the place in the architecture that sets its channel count (``blocks.3.hidden``), or "" where the count is
    inherited from the input (depthwise convolutions, pools) or set from outside (the image, the classes).
    """

    name: str
    inputs: tuple[int, ...]
    shape: Shape
    width: str = ""

    kind: ClassVar[str] = "op"

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return 0

    @property
    def folded_params(self) -> int:
        """Parameters as deployed: batch normalisation folded into a bias."""
        return self.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return 0


@dataclass(frozen=True, slots=True)
class Input(Op):
    """The image, or the feature map that enters a block lowered by itself."""

    kind: ClassVar[str] = "input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv(Op):
    """Convolution, with the batch normalisation that follows it if any (then it has no bias of its own).

    Depthwise when `groups` is above 1: it then equals both channel counts. `padding` is symmetric, in pixels.
    """

    cin: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = False
    norm: Norm | None = None

    kind: ClassVar[str] = "conv"

    @property
    def depthwise(self) -> bool:
        """Whether each channel is filtered by itself."""
        return self.groups > 1

    @property
    def weights(self) -> int:
        """Number of weights, without bias and normalisation."""
        return self.shape.channels * (self.cin // self.groups) * self.kernel**2

    @property
    def params(self) -> int:
        return self.weights + self.shape.channels * (2 if self.norm else int(self.bias))

    @property
    def folded_params(self) -> int:
        return self.weights + (self.shape.channels if self.norm or self.bias else 0)

    @property
    def macs(self) -> int:
        return self.weights * self.shape.height * self.shape.width


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear(Op):
    """Fully connected layer with bias, on a flattened vector of `cin` values."""

    cin: int

    kind: ClassVar[str] = "linear"

    @property
    def params(self) -> int:
        return self.shape.channels * (self.cin + 1)

    @property
    def macs(self) -> int:
        return self.shape.channels * self.cin


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalize(Op):
    """Batch normalisation that does not follow a convolution (it stays an op of its own when deployed)."""

    norm: Norm

    kind: ClassVar[str] = "normalize"

    @property
    def params(self) -> int:
        return 2 * self.shape.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation(Op):
    """Elementwise non-linearity."""

    function: ActivationKind

    kind: ClassVar[str] = "activation"


@dataclass(frozen=True, slots=True)
class Add(Op):
    """Sum of two maps of one shape: a residual or a bypass. The first input is the branch, the second the shortcut."""

    kind: ClassVar[str] = "add"


@dataclass(frozen=True, slots=True)
class Concat(Op):
    """Maps of one height and width, one after the other along the channels."""

    kind: ClassVar[str] = "concat"


@dataclass(frozen=True, slots=True)
class Scale(Op):
    """First input times the second, one factor per channel (squeeze-excite's gate)."""

    kind: ClassVar[str] = "scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScale(Op):
    """Trainable factor per channel, starting at `initial` (1e-5 in MobileNetV4's hybrids)."""

    initial: float

    kind: ClassVar[str] = "layer_scale"

    @property
    def params(self) -> int:
        return self.shape.channels

    @property
    def folded_params(self) -> int:
        return 0  # in the weights of the convolution before


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(Op):
    """Maximum or average over a window; `ceil` rounds the output size up (SqueezeNet) instead of down."""

    function: Literal["max", "avg"]
    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False

    kind: ClassVar[str] = "pool"


@dataclass(frozen=True, slots=True)
class GlobalPool(Op):
    """Average over the whole map: (C, H, W) to (C, 1, 1)."""

    kind: ClassVar[str] = "global_pool"


@dataclass(frozen=True, slots=True)
class Flatten(Op):
    """(C, 1, 1) to a vector of C values; its shape stays written as (C, 1, 1)."""

    kind: ClassVar[str] = "flatten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout(Op):
    """While training, sets a share `rate` of the values to zero and scales the others; nothing when deployed."""

    rate: float

    kind: ClassVar[str] = "dropout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention(Op):
    """Scaled dot-product attention over the positions of maps (MobileNetV4's Mobile MQA, or MHSA).

    Inputs: queries (heads·key_dim, H, W), keys (kv_heads·key_dim, h, w), values (kv_heads·value_dim, h, w).
    Output: (heads·value_dim, H, W). `kv_heads` is 1 (shared by all query heads) or equals `heads`.
    """

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    kv_tokens: int

    kind: ClassVar[str] = "attention"

    @property
    def macs(self) -> int:
        return self.heads * self.shape.height * self.shape.width * self.kv_tokens * (self.key_dim + self.value_dim)


IN_PLACE = (Activation, Normalize, Scale, LayerScale, Add, Flatten, Dropout)  # write over their first input


@dataclass(frozen=True)
class Graph:
    """Ops in execution order; the first is the input, the last the output."""

    ops: tuple[Op, ...]

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __len__(self) -> int:
        return len(self.ops)

    @property
    def output(self) -> Op:
        """The op whose result is the network's."""
        return self.ops[-1]

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(op.params for op in self.ops)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(op.macs for op in self.ops)

    @property
    def weights_bytes(self) -> int:
        """Size of the deployed float32 weights, batch normalisation folded."""
        return BYTES_PER_VALUE * sum(op.folded_params for op in self.ops)

    @property
    def peak_activation_bytes(self) -> int:
        """Most bytes of float32 feature maps alive at one time, for one image, ops executed in order.

        Elementwise ops write over their first input when nobody else needs it any more.
        """
        last_use = self.last_uses()
        owner = list(range(len(self.ops)))  # whose buffer a result lies in
        alive: dict[int, int] = {}
        peak = 0
        for index, op in enumerate(self.ops):
            first = op.inputs[0] if op.inputs else -1
            if isinstance(op, IN_PLACE) and last_use[first] == index:
                owner[index] = owner[first]
            else:
                alive[index] = op.shape.values
            peak = max(peak, sum(alive.values()))
            for source in op.inputs:
                if last_use[source] == index and owner[source] != owner[index]:
                    alive.pop(owner[source], None)
        return BYTES_PER_VALUE * peak

    def last_uses(self) -> list[int]:
        """For each op the position of the last op that reads it; the output's is one past the end."""
        last = list(range(len(self.ops)))
        for index, op in enumerate(self.ops):
            for source in op.inputs:
                last[source] = index
        last[-1] = len(self.ops)
        return last

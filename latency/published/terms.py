"""What published latencies are explained by: five quantities that every kind of op shares.

Published figures are a few dozen whole networks, too few to give each kind of op weights of its own. So all share

=================  =================================================================================
``macs``           multiply-accumulates of plain convolutions and linear layers, and of attention
``depthwise macs``  those of depthwise convolutions, whose arithmetic reads far more for each
``weights``        numbers read as weights
``maps``           numbers read and written as maps
``ops``            1: what any op costs, however small
=================  =================================================================================

An additive roofline. ReLU and ReLU6 cost nothing (runtimes fuse them into the convolution before), nor do dropout, layer scale
and flattening. `kind` names what an op is, so that a model can tell which kinds stood in no published network.
"""

from collections.abc import Sequence

from searchspace import graph as ir
from searchspace.graph import Op

TERMS = ("macs", "depthwise macs", "weights", "maps", "ops")
IMAGE_CHANNELS = 4  # inputs of fewer channels are images
Quantities = dict[str, float]


def quantities(ops: Sequence[Op]) -> dict[str, Quantities]:
    """The quantities of some ops by kind; the first op is the input and costs nothing."""
    total: dict[str, Quantities] = {}
    for op in ops[1:]:
        name = kind(op, ops)
        if not name:
            continue
        parts = total.setdefault(name, dict.fromkeys(TERMS, 0.0))
        for term, value in _terms(op, ops).items():
            parts[term] += value
    return total


def summed(by_kind: dict[str, Quantities]) -> Quantities:
    """The quantities of all kinds together."""
    return {term: sum(parts[term] for parts in by_kind.values()) for term in TERMS}


def kind(op: Op, ops: Sequence[Op]) -> str:
    """What an op is, or "" where it costs nothing."""
    match op:
        case ir.Conv():
            window = f"{op.kernel}×{op.kernel}"
            if op.depthwise:
                return f"depthwise {window}"
            if op.kernel == 1:
                return "pointwise"
            return f"{'image ' if op.cin <= IMAGE_CHANNELS else ''}convolution {window}"
        case ir.Activation():
            if op.function in ("relu", "relu6"):
                return ""
            return "activation of a vector" if op.shape.height == op.shape.width == 1 else f"activation {op.function}"
        case ir.Pool():
            return f"{op.function} pool"
        case ir.Dropout() | ir.LayerScale() | ir.Flatten():
            return ""
    return op.kind.replace("_", " ")


def _terms(op: Op, ops: Sequence[Op]) -> Quantities:
    moved = op.shape.values + sum(ops[source].shape.values for source in op.inputs)
    found: Quantities = {"maps": moved, "ops": 1}
    if isinstance(op, ir.Conv):
        found["depthwise macs" if op.depthwise else "macs"] = op.macs
        found["weights"] = op.weights
    elif isinstance(op, ir.Linear):
        found |= {"macs": op.macs, "weights": op.macs}
    elif isinstance(op, ir.Attention):
        scores = op.heads * op.shape.height * op.shape.width * op.kv_tokens
        found |= {"macs": op.macs, "maps": moved + 2 * scores}  # written, normalised, read
    return found

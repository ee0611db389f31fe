"""Which kernels ONNX Runtime's CPU provider executes for a network, block by block, by rule and without a session."""

from collections.abc import Sequence
from functools import lru_cache

from latency import fp32_kernels, int8_kernels
from latency.kernel import Entry, Kernel, Plan
from latency.settings import Precision
from searchspace.architecture import lower_block, lower_head
from searchspace.blocks import Block, Head
from searchspace.graph import Graph, Norm, Op, Shape


def kernels(graph: Graph, *, nchwc_block: int, precision: Precision = "fp32") -> tuple[Kernel, ...]:
    """The kernels of a whole network, in an order of execution.

    Args:
        graph: the lowered network.
        nchwc_block: channels in a block on the device (see `latency.layout`), 1 where it has no such layout.
        precision: of the model that is run.
    """
    return _plan(graph.ops, Entry(), nchwc_block, precision).kernels


@lru_cache(maxsize=1 << 16)
def block_plan(
    block: Block,
    shape: Shape,
    entry: Entry,
    *,
    norm: Norm | None,
    nchwc_block: int,
    precision: Precision = "fp32",
) -> Plan:
    """The kernels of one block whose input of `shape` is found as `entry`; cached, like `lower_block`.

    The kernels of a network are those of its blocks and its head, each entered as the one before was left.
    """
    return _plan(lower_block(block, shape, norm), entry, nchwc_block, precision)


@lru_cache(maxsize=1 << 12)
def head_plan(
    head: Head,
    shape: Shape,
    entry: Entry,
    *,
    classes: int,
    norm: Norm | None,
    nchwc_block: int,
    precision: Precision = "fp32",
) -> tuple[Kernel, ...]:
    """The kernels of the head; cached."""
    return _plan(lower_head(head, shape, classes=classes, norm=norm), entry, nchwc_block, precision).kernels


def _plan(ops: Sequence[Op], entry: Entry, nchwc_block: int, precision: Precision) -> Plan:
    if precision == "int8":
        return int8_kernels.plan(ops, entry, nchwc_block=nchwc_block)
    return fp32_kernels.plan(ops, entry, nchwc_block=nchwc_block)

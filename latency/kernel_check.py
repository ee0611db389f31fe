"""Whether a device's runtime executes the kernels that `latency.kernel` says: compared with the graph the runtime saves."""

from collections import Counter

import onnx
from onnx import GraphProto, NodeProto

from latency.kernel import PRODUCTS, Kernel
from latency.planning import kernels
from latency.settings import Precision
from searchspace.graph import Graph

NCHWC_DOMAIN = "com.microsoft.nchwc"
WEIGHT_INPUT = {"Conv": 1, "FusedConv": 1, "QLinearConv": 3, "Gemm": 1, "QGemm": 3}
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv")
POOLS = ("MaxPool", "AveragePool", "NhwcMaxPool", "QLinearAveragePool")
NOT_COMPARED = ("Transpose",)  # the runtime places them by an estimate of costs (see `latency.int8_kernels`)
LAYOUT_BY_COSTS = {"NhwcMaxPool": "MaxPool"}  # and so it does with the layout of a pool of integers next to floats


def check_rules(graph: Graph, optimized: bytes, *, nchwc_block: int, precision: Precision = "fp32") -> list[str]:
    """Differences between the kernels by rule and those of the runtime's optimised model; none if the rules hold.

    Compared are the node types with their layout, and of convolutions the (padded) weight's shape, window, groups, fused
    activation and fused sum, of pools the window, of reorders the channels.

    Args:
        graph: the lowered network.
        optimized: the ONNX model that the runtime saved for it (see `latency.device.Device.optimize`).
        nchwc_block: channels in a block on that device.
        precision: of the model that was optimised.
    """
    planned = kernels(graph, nchwc_block=nchwc_block, precision=precision)
    expected = Counter(kernel_text(kernel, nchwc_block) for kernel in planned if kernel.op not in NOT_COMPARED)
    model = onnx.load_from_string(optimized).graph
    weights = weight_shapes(model)
    found = Counter(node_text(node, weights) for node in model.node if node.op_type not in NOT_COMPARED)
    return [f"expected {count} × {text}" for text, count in sorted((expected - found).items())] + [
        f"found {count} × {text}" for text, count in sorted((found - expected).items())
    ]


def weight_shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Shape of each stored tensor by its name."""
    return {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def kernel_text(kernel: Kernel, block: int) -> str:
    """A kernel in the words that `node_text` uses for a node."""
    blocked = kernel.layout == "nchwc"
    if kernel.convolves:
        cout, cin = kernel.shape.channels, kernel.source.channels // kernel.groups
        groups = kernel.groups
        if blocked:
            cout = _padded(cout, block)
            cin = cin if kernel.direct or groups > 1 else _padded(cin, block)
            groups = _padded(groups, block) if groups > 1 else 1
        name = "nchwc Conv" if blocked else "FusedConv" if kernel.activation or kernel.add else kernel.op
        window = f"stride {kernel.stride} pad {kernel.padding} groups {groups}"
        fused = f"{kernel.activation}{' +add' if kernel.add else ''}"
        return f"{name} {(cout, cin, kernel.kernel, kernel.kernel)} {window} {fused}".rstrip()
    if kernel.op in POOLS:
        window = f"kernel {kernel.kernel} stride {kernel.stride} pad {kernel.padding}"
        return f"{'nchwc ' if blocked else ''}{LAYOUT_BY_COSTS.get(kernel.op, kernel.op)} {window}"
    if kernel.op in PRODUCTS:
        return f"{kernel.op} {(kernel.shape.channels, kernel.source.channels)}"
    if kernel.op == "ReorderOutput":
        return f"nchwc ReorderOutput {kernel.shape.channels}"
    own = kernel.op == "ReorderInput" or (kernel.op == "GlobalAveragePool" and blocked)
    return f"nchwc {kernel.op}" if own else kernel.op


def node_text(node: NodeProto, weights: dict[str, tuple[int, ...]]) -> str:
    """A node of the optimised model in one line."""
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    name = f"nchwc {node.op_type}" if node.domain == NCHWC_DOMAIN else node.op_type
    stride = attributes.get("strides", [1])[0]
    padding = attributes.get("pads", [0])[0]
    if node.op_type in CONVOLUTIONS:
        activation = attributes.get("activation", b"").decode()
        summed = node.op_type != "QLinearConv" and len(node.input) > 3
        fused = f"{activation}{' +add' if summed else ''}"
        window = f"stride {stride} pad {padding} groups {attributes.get('group', 1)}"
        return f"{name} {weights[node.input[WEIGHT_INPUT[node.op_type]]]} {window} {fused}".rstrip()
    if node.op_type in POOLS:
        name = LAYOUT_BY_COSTS.get(name, name)
        return f"{name} kernel {attributes['kernel_shape'][0]} stride {stride} pad {padding}"
    if node.op_type in PRODUCTS:
        return f"{name} {weights[node.input[WEIGHT_INPUT[node.op_type]]]}"
    if node.op_type == "ReorderOutput":
        return f"{name} {attributes['channels']}"
    return name


def _padded(channels: int, block: int) -> int:
    return -(-channels // block) * block

"""The block of channels in ONNX Runtime's CPU layout, found by looking at what a device's runtime makes of a tiny model."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def probe_model() -> bytes:
    """A model of one convolution from one channel to one channel."""
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "probe",
        [values("x", onnx.TensorProto.FLOAT, [1, 1, 4, 4])],
        [values("y", onnx.TensorProto.FLOAT, [1, 1, 2, 2])],
        [
            numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w"),
            numpy_helper.from_array(np.zeros(1, np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def nchwc_block(optimized: bytes) -> int:
    """Channels in a block, read off the runtime's optimised form of `probe_model`: it pads the one output channel to a block.

    Returns:
        8, 16, …, or 1 where the runtime has no such layout (some ARM builds, graph levels below ``all``).
    """
    graph = onnx.load_from_string(optimized).graph
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and node.domain == "com.microsoft.nchwc":
            return int(weights[node.input[1]][0])
    return 1

"""Small ONNX models for tests of measuring."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper


def small_model(*, channels: int = 16, layers: int = 2, resolution: int = 16, dtype: str = "float32") -> bytes:
    """Convolutions with ReLU, then a global pool: input "x" (1, 3, r, r), output "y" (1, channels, 1, 1)."""
    source = np.random.default_rng(0)
    nodes, weights, last, width = [], [], "x", 3
    if dtype != "float32":
        nodes.append(helper.make_node("Cast", ["x"], ["cast"], to=onnx.TensorProto.FLOAT))
        last = "cast"
    for layer in range(layers):
        array = source.standard_normal((channels, width, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(array, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [last, f"w{layer}"], [f"c{layer}"], pads=[1] * 4, name=f"conv{layer}"))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"], name=f"relu{layer}"))
        last, width = f"r{layer}", channels
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"], name="pool"))
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", kind, [1, 3, resolution, resolution])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, channels, 1, 1])],
        weights,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def unknown_op_model() -> bytes:
    """A model whose only node is of a type that no runtime has."""
    value = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Imaginary", ["x"], ["y"])], "unknown", value[:1], value[1:])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def with_input_sizes(model: bytes, sizes: Sequence[int | str | None]) -> bytes:
    """The model with another shape of its first input; a text is the name of an open size, None an open one without.

    An open batch is open in the output as well.
    """
    changed = onnx.load_from_string(model)
    shape = changed.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for size in sizes:
        dim = shape.dim.add()
        if isinstance(size, str):
            dim.dim_param = size
        elif size is not None:
            dim.dim_value = size
    if isinstance(sizes[0], str):
        changed.graph.output[0].type.tensor_type.shape.dim[0].dim_param = sizes[0]
    return changed.SerializeToString()

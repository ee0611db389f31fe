"""Preprocessing inside the graph: an ONNX model that takes pixels as a camera or a decoder gives them.

The input ``pixels`` is uint8 (batch, height, width, channels), of any height and width. Done to it is what `nas.data` does to
images: the centre square is cut out, resized (cubic, antialiased) to the network's resolution and rounded to whole grey levels,
then scaled and normalised per channel.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nas.checkpoint import Checkpoint
from searchspace.onnx_graph import INPUT

PIXELS = "pixels"
CUBIC = -0.5  # Catmull-Rom, as Pillow's bicubic filter


def with_preprocessing(model: bytes, checkpoint: Checkpoint) -> bytes:
    """The same model from pixels on; it takes as many images at a time as before.

    Args:
        model: serialised, with the float input ``image``.
        checkpoint: says how images are normalised, and at what resolution.
    """
    loaded = onnx.load_from_string(model)
    graph = loaded.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    first = batch.dim_param or batch.dim_value
    side, channels = checkpoint.architecture.resolution, checkpoint.architecture.channels
    mean = np.asarray(checkpoint.data.mean, np.float32).reshape(1, -1, 1, 1)
    std = np.asarray(checkpoint.data.std, np.float32).reshape(1, -1, 1, 1)
    tensors = {
        "two": np.array([2], np.int64),
        "axes": np.array([1, 2], np.int64),
        "sides": np.array([side, side], np.int64),
        "black": np.float32(0),
        "white": np.float32(255),
        "mean": 255 * mean,
        "factor": 1 / (255 * std),
    }
    nodes = [
        helper.make_node("Shape", [PIXELS], ["size"], start=1, end=3),
        helper.make_node("ReduceMin", ["size"], ["side"], keepdims=1),
        helper.make_node("Sub", ["size", "side"], ["rest"]),
        helper.make_node("Div", ["rest", "two"], ["begin"]),
        helper.make_node("Add", ["begin", "side"], ["end"]),
        helper.make_node("Slice", [PIXELS, "begin", "end", "axes"], ["square"]),
        helper.make_node("Transpose", ["square"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node(
            "Resize",
            ["levels", "", "", "sides"],
            ["resized"],
            axes=[2, 3],
            mode="cubic",
            cubic_coeff_a=CUBIC,
            antialias=1,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Round", ["resized"], ["rounded"]),
        helper.make_node("Clip", ["rounded", "black", "white"], ["clipped"]),
        helper.make_node("Sub", ["clipped", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "factor"], ["normalised"]),
        helper.make_node("Reshape", ["normalised", "shape"], [INPUT]),  # says what the resizing leaves open
    ]
    tensors["shape"] = np.array([0 if isinstance(first, str) else first, channels, side, side], np.int64)
    named = _prefixed(nodes, keep=(PIXELS, INPUT))
    body = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*named, *body])
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), _PREFIX + name) for name, value in tensors.items()
    )
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, [first, "height", "width", channels]))
    serialized: bytes = loaded.SerializeToString()
    return serialized


_PREFIX = "preprocessing."


def _prefixed(nodes: Sequence[onnx.NodeProto], *, keep: tuple[str, ...]) -> Sequence[onnx.NodeProto]:
    """The nodes with names of their own, so that none meets one of the network's."""

    def own(name: str) -> str:
        return name if name in keep or not name else _PREFIX + name

    for node in nodes:
        node.input[:] = [own(name) for name in node.input]
        node.output[:] = [own(name) for name in node.output]
        node.name = node.output[0]
    return nodes

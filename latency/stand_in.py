"""The model that is measured in place of a network: its graph in the target's precision, with weights that mean nothing."""

from latency.qdq import to_qdq
from latency.settings import Precision
from searchspace.graph import Graph
from searchspace.onnx_graph import random_weights, to_onnx


def stand_in(lowered: Graph, precision: Precision) -> bytes:
    """A serialised ONNX model that takes as long as the trained and exported network would."""
    model = to_onnx(lowered, random_weights(lowered))
    return to_qdq(model) if precision == "int8" else model

"""What ONNX Runtime is given: single ops where the standard has them, and nothing that it would have to undo."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from searchspace import graph
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, ClassicHead, Conv, MultiQueryAttention
from searchspace.onnx_graph import random_weights, to_onnx
from searchspace.references import REFERENCES, reference


def emitted(architecture: Architecture) -> bytes:
    lowered = lower(architecture)
    return to_onnx(lowered, random_weights(lowered))


def executed(model: bytes, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of the model, by kind of node."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that a saved optimised model fits this machine only
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kv_stride", [1, 2])
def test_attention_runs_without_transposes(tmp_path: Path, kv_stride: int, shared: bool) -> None:
    attention = MultiQueryAttention(heads=4, key_dim=16, value_dim=16, kv_stride=kv_stride, shared=shared)
    nodes = executed(emitted(Architecture((Conv(cout=32), attention), ClassicHead(), resolution=16)), tmp_path)
    assert nodes["FusedMatMul"] == 2
    assert nodes["Softmax"] == 1
    assert not {"Transpose", "Mul", "MatMul", "Expand", "BatchNormalization"} & nodes.keys()


def test_hard_activations_are_single_nodes() -> None:
    blocks = (Conv(cout=8, activation="hard_swish"), UIB(cout=8, hidden=16, se=8))
    model = onnx.load_from_string(emitted(Architecture(blocks, ClassicHead(), resolution=16)))
    nodes = Counter(node.op_type for node in model.graph.node)
    assert nodes["HardSwish"] == nodes["HardSigmoid"] == 1
    assert not {"Clip", "Div"} & nodes.keys()


@pytest.mark.parametrize("name", REFERENCES)
def test_normalisation_and_dropout_are_gone(name: str) -> None:
    architecture = reference(name, resolution=96)
    model = onnx.load_from_string(emitted(architecture))
    nodes = Counter(node.op_type for node in model.graph.node)
    lowered = lower(architecture)
    assert nodes["BatchNormalization"] == sum(
        isinstance(op, graph.Normalize) for op in lowered
    )  # attention's input alone
    assert nodes["Conv"] == sum(isinstance(op, graph.Conv) for op in lowered)
    assert "Dropout" not in nodes


def test_squeeze_excite_fuses_into_three_convolutions_and_one_product(tmp_path: Path) -> None:
    block = UIB(cout=8, hidden=16, se=8, activation="hard_swish")
    nodes = executed(emitted(Architecture((Conv(cout=8), block), ClassicHead(), resolution=16)), tmp_path)
    assert nodes["Mul"] == 1
    assert not {"Relu", "HardSigmoid", "HardSwish"} & nodes.keys()


def test_attention_behind_many_sums_gets_no_denormal_numbers() -> None:
    """They would make a network that was never trained up to twenty times as slow as a trained one."""
    bottleneck = UIB(cout=32, hidden=64, dw_mid=3, residual=True)
    attention = MultiQueryAttention(heads=2, key_dim=16, value_dim=16)
    blocks = (Conv(cout=32, stride=2), *[bottleneck] * 12, attention)
    model = onnx.load_from_string(emitted(Architecture(blocks, resolution=32)))
    [shares] = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    model.graph.output.append(onnx.helper.make_tensor_value_info(shares, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
    found = session.run([shares], {"image": images})[0]
    assert found.min() > np.finfo(np.float32).tiny

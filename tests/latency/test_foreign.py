"""ONNX models of other hands: what comes from beside the file, what is open in it, what is said of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from latency import foreign
from latency.errors import LatencyError
from latency.fake import FakeDevice
from latency.foreign import read_foreign
from latency.qdq import to_qdq
from tests.latency.device_conformance import SETTINGS
from tests.latency.models import small_model, with_input_sizes

NAMED = ("n", "c", "h", "w")
MODEL = small_model()


def saved(path: Path, dims: Sequence[int | str | None]) -> Path:
    path.write_bytes(with_input_sizes(MODEL, dims))
    return path


def beside(folder: Path) -> Path:
    """A model with its weights in another file, as torch exports it."""
    path = folder / "m.onnx"
    model = onnx.load_from_string(MODEL)
    onnx.save_model(model, str(path), save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    return path


def sizes(model: bytes) -> list[int]:
    return [dim.dim_value for dim in onnx.load_from_string(model).graph.input[0].type.tensor_type.shape.dim]


def answer(model: bytes) -> np.ndarray:
    image = np.random.default_rng(0).standard_normal(sizes(model)).astype(np.float32)
    return FakeDevice().outputs(model, {"x": image}, settings=SETTINGS)["y"]


def test_a_complete_model_is_sent_as_it_is(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(MODEL)
    assert read_foreign(path) == foreign.ForeignModel(MODEL, quantized=False)


def test_weights_beside_the_file_are_brought_in(tmp_path):
    path = beside(tmp_path)
    assert (tmp_path / "m.onnx.data").stat().st_size > path.stat().st_size
    assert np.array_equal(answer(read_foreign(path).model), answer(MODEL))


def test_weights_that_are_not_there_or_too_many_are_one_line(tmp_path, monkeypatch):
    path = beside(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(foreign, "MOST_BYTES", path.stat().st_size + 100)
        with pytest.raises(LatencyError, match=r"m\.onnx: .* at most 2 GiB with its weights, this one has more"):
            read_foreign(path)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(
        LatencyError, match=r"m\.onnx: its weights lie in files beside it, which cannot be read"
    ) as caught:
        read_foreign(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dims", [NAMED, (None,) * 4, (1, "c", None, "w"), (-1, 3, "s", "s")])
def test_open_sizes_are_filled_in(tmp_path, dims):
    found = read_foreign(saved(tmp_path / "m.onnx", dims), resolution=16, channels=3)
    assert sizes(found.model) == [1, 3, 16, 16]
    assert np.array_equal(answer(found.model), answer(MODEL))
    assert found.remarks == ()
    [output] = onnx.load_from_string(found.model).graph.output
    assert output.type.tensor_type.shape.dim[0].dim_value == 1


def test_an_open_batch_alone_needs_no_option(tmp_path):
    assert sizes(read_foreign(saved(tmp_path / "m.onnx", ("n", 3, 16, 16))).model) == [1, 3, 16, 16]


def test_channels_may_be_last(tmp_path):
    path = saved(tmp_path / "m.onnx", ("n", "h", "w", 3))
    assert sizes(read_foreign(path, resolution=24).model) == [1, 24, 24, 3]
    assert sizes(read_foreign(saved(path, NAMED), resolution=24, channels=3).model) == [1, 3, 24, 24]


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        (
            ("n", 3, "h", "w"),
            r"open are height \(h\) of input 'x', width \(w\) of input 'x': give --resolution, or export",
        ),
        ((1, None, 8, 8), r"open are channels of input 'x': give --channels, or export it with fixed sizes"),
        (("n", "words"), r"open are axis 1 \(words\) of input 'x': export it so"),
        ((1, 3, 8, "h", 8), r"open are axis 3 \(h\) of input 'x': export it so"),
    ],
)
def test_other_open_sizes_are_named(tmp_path, dims, message):
    with pytest.raises(LatencyError, match=r"m\.onnx: a model to measure must have inputs of fixed sizes, " + message):
        read_foreign(saved(tmp_path / "m.onnx", dims))


def test_an_input_of_no_known_shape_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    model = onnx.load_from_string(MODEL)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(LatencyError, match="open are the shape of input 'x'"):
        read_foreign(path, resolution=16, channels=3)


def test_what_is_fixed_stays_and_that_is_said(tmp_path):
    path = saved(tmp_path / "m.onnx", (8, 3, 16, 16))
    found = read_foreign(path, resolution=32, channels=3)
    assert (sizes(found.model), found.batch) == ([8, 3, 16, 16], 8)
    assert found.remarks == (
        f"{path}: height of its input is 16, --resolution does not apply",
        f"{path}: its batch is fixed, milliseconds are of 8 images at a time",
    )


@pytest.mark.parametrize("content", [b"", b"no model", MODEL[:100]])
def test_what_is_no_model_is_one_line(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(LatencyError, match=r"m\.onnx: an ONNX model is needed, got something else"):
        read_foreign(path)
    with pytest.raises(LatencyError, match="an ONNX model is needed, it cannot be read"):
        read_foreign(tmp_path / "nowhere.onnx")


def test_models_of_8_bits_are_told_from_others(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(to_qdq(MODEL))
    assert read_foreign(path).quantized
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert not read_foreign(path).quantized

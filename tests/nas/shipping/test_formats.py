"""Every format does what the checkpoint does, says how to use it, and is not written if it does not."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from nas.checkpoint import Checkpoint
from nas.data import Data
from nas.data.pixels import decode
from nas.deployment import compare, noise, onnx_model, random_checkpoint, runner
from nas.errors import ExportError
from nas.evaluation import evaluate
from nas.recipe import Recipe
from nas.shipping import formats, int8, ort, phone, standalone
from nas.shipping.card import write_card
from nas.shipping.formats import Wish, export
from nas.shipping.preprocessing import PIXELS, with_preprocessing
from nas.training import train
from searchspace.errors import NasError
from searchspace.references import REFERENCES, reference
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space
from tests.nas.learning import shapes, small

DATA = shapes()
SAMPLED, SAMPLED_ALWAYS = 20, 3  # networks of the default space


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return train(small(dropout=0.2), DATA, Recipe(epochs=4, batch_size=16, flip=False)).checkpoint


def networks() -> Iterator[Any]:
    """Small versions of every reference, and networks of the default space, most of them only where there is time."""
    for name in REFERENCES:
        yield pytest.param(reference(name, resolution=64, width_multiplier=0.25, classes=7), id=name)
    source, space = RandomSuggest(4), load_space("default").adapt(channels=1, classes=5, resolution=16)
    for index in range(SAMPLED):
        marks = [pytest.mark.slow] if index >= SAMPLED_ALWAYS else []
        yield pytest.param(space.sample(source), id=f"sampled {index}", marks=marks)


@pytest.mark.parametrize("architecture", list(networks()))
def test_the_plain_modules_and_the_runtimes_format_give_the_same_logits(architecture: Any) -> None:
    made = random_checkpoint(architecture)
    images = noise(architecture, images=3)
    logits = standalone.run(standalone.model_source(made), standalone.weights(made), images)
    with torch.inference_mode():
        wanted = made.network()(images).numpy()
    assert np.abs(logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
    converted, operators = ort.to_ort(onnx_model(made))
    compare(converted, made.network(), images)
    assert "Conv" in operators


def test_the_folder_runs_where_there_is_torch_alone(tmp_path: Path, checkpoint: Checkpoint) -> None:
    report = export(checkpoint, tmp_path / "shipped", Wish(format="torch"), data=DATA)
    assert report["bytes"] == sum(file.stat().st_size for file in (tmp_path / "shipped").iterdir())
    pixels = DATA.test.images[:5].contiguous()
    torch.save(pixels, tmp_path / "pixels.pt")
    program = (
        "import sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "for name in ('nas', 'searchspace', 'latency', 'onnx', 'onnxruntime'): sys.modules[name] = None\n"
        "import model\n"
        "logits = model.load()(model.prepare(torch.load(sys.argv[2], weights_only=True)))\n"
        "print(model.CLASSES); print(logits.tolist())\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path / "shipped"), str(tmp_path / "pixels.pt")],
        capture_output=True,
        text=True,
        check=True,
    )
    classes, logits = run.stdout.splitlines()
    assert classes == str(list(DATA.classes))
    mean, std = (torch.tensor(value).view(1, -1, 1, 1) for value in (DATA.mean, DATA.std))
    with torch.inference_mode():
        wanted = checkpoint.network()((pixels.float() / 255 - mean) / std)
    assert np.allclose(json.loads(logits), wanted.numpy(), atol=1e-5)


def test_a_name_from_a_file_cannot_become_code(checkpoint: Checkpoint) -> None:
    name = 'x"""\nraise SystemExit\n"""'
    renamed = dataclasses.replace(checkpoint, architecture=dataclasses.replace(checkpoint.architecture, name=name))
    source = standalone.model_source(renamed)
    assert "\nraise SystemExit" not in source
    assert standalone.run(source, standalone.weights(renamed), noise(checkpoint.architecture, images=2)).shape[0] == 2


@pytest.mark.parametrize("batch", [1, 4, None])
def test_preprocessing_belongs_to_the_file(tmp_path: Path, checkpoint: Checkpoint, batch: int | None) -> None:
    wish = Wish(format="onnx", batch=batch, preprocessing=True)
    report = export(checkpoint, tmp_path / "pixels.onnx", wish, data=DATA)
    assert report["preprocessing"] and report["max_abs_diff"] < 1e-3
    pixels = DATA.test.images[:4].permute(0, 2, 3, 1).contiguous()
    mean, std = torch.tensor(DATA.mean), torch.tensor(DATA.std)
    logits = runner((tmp_path / "pixels.onnx").read_bytes(), source=PIXELS)(pixels)
    with torch.inference_mode():
        wanted = checkpoint.network()(((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2))
    assert np.allclose(logits, wanted.numpy(), atol=1e-3)


def whole_images(count: int = 12) -> list[np.ndarray]:
    """Test images four times as large, between bands that are cut off."""
    larger = np.kron(DATA.test.images[:count, 0].numpy(), np.ones((4, 4), np.uint8))
    return list(np.pad(larger, ((0, 0), (0, 0), (8, 8)))[..., None])


@pytest.mark.parametrize("format_", ["onnx", "onnx-int8", "ort"])
def test_a_file_that_crops_and_resizes_is_tried_on_images_of_their_own_size(
    tmp_path: Path, checkpoint: Checkpoint, format_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, wish = tmp_path / "pixels", Wish(format=format_, preprocessing=True, max_drop=0.05, min_agreement=0.9)
    report = export(checkpoint, path, wish, data=DATA, whole=whole_images())
    assert report["whole_images"]["images"] == 12
    assert report["whole_images"]["agreement"] >= 0.75
    assert "test images of their own size" in write_card(checkpoint, path, report)[1].read_text()
    path.unlink()
    monkeypatch.setattr(formats, "decode", lambda pixels, **size: decode(np.rot90(pixels).copy(), **size))
    with pytest.raises(ExportError, match=r"cropping and resizing .* of 12 test images; nothing was written"):
        export(checkpoint, path, wish, data=DATA, whole=whole_images())
    assert not path.exists()


@pytest.mark.parametrize("format_", ["onnx-int8", "ort"])
def test_preprocessing_goes_with_every_onnx_format(tmp_path: Path, checkpoint: Checkpoint, format_: str) -> None:
    path = tmp_path / "pixels"
    export(checkpoint, path, Wish(format=format_, preprocessing=True, max_drop=0.05), data=DATA)
    pixels = DATA.test.images[:6].permute(0, 2, 3, 1).contiguous()
    logits = runner(path.read_bytes(), source=PIXELS)(pixels)
    assert logits.shape == (6, checkpoint.architecture.classes)


@pytest.mark.parametrize("size", [(37, 52), (64, 64), (50, 31), (9, 13)])
def test_images_of_any_size_are_cut_out_and_resized_as_when_they_were_decoded(size: tuple[int, int]) -> None:
    """The graph up to the network's input, against Pillow, in grey levels."""
    architecture = reference("mobilenet_v2", resolution=32, width_multiplier=0.25, classes=3)
    made = random_checkpoint(architecture)
    model = onnx.load_from_string(with_preprocessing(onnx_model(made), made))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    waves = [np.sin(rows / (5 + channel)) + np.cos(columns / (4 + channel)) for channel in range(3)]
    pixels = np.uint8(127 + 60 * np.stack(waves, axis=-1))
    (image,) = session.run(None, {PIXELS: pixels[None]})
    levels = (image[0].transpose(1, 2, 0) * made.data.std + made.data.mean) * 255
    wanted = decode(np.asarray(Image.fromarray(pixels)), resolution=32, channels=3).astype(float)
    difference = np.abs(levels - wanted)
    assert (
        np.median(difference) <= 1 if (size[0] - size[1]) % 2 == 0 else np.median(difference) <= 6
    )  # half a pixel off
    assert difference.mean() < 8


def test_eight_bits_say_almost_always_the_same(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "small.onnx"
    report = export(checkpoint, path, Wish(format="onnx-int8", max_drop=0.05), data=DATA)
    model = path.read_bytes()
    kinds = {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert "QuantizeLinear" in kinds
    assert report["float_validation_accuracy"] - report["validation_accuracy"] <= 0.05
    assert report["agreement"] >= 0.9
    assert report["float_accuracy"] == evaluate(checkpoint.network(), DATA.test, DATA).accuracy
    said = {entry.key for entry in onnx.load_from_string(model).metadata_props}
    assert said >= {"architecture", "classes", "input", "accuracy"}


def test_layers_that_eight_bits_hurt_stay_in_float_and_are_named(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quantiser that ruins two layers: both are found, and left alone."""
    honest = int8._static
    layers = [node.name for node in onnx.load_from_string(onnx_model(checkpoint)).graph.node if node.op_type == "Conv"]
    bad = {layers[1], layers[2]}

    def ruining(model: bytes, images: torch.Tensor, *, leave: Any = (), only: str | None = None, **rest: Any) -> bytes:
        hurt = [name for name in bad if name not in leave and only in (None, name)]
        made = onnx.load_from_string(honest(model, images, leave=leave, only=only, **rest))
        for tensor in made.graph.initializer:
            if any(tensor.name.startswith(f"{name}.weight") and "scale" in tensor.name for name in hurt):
                value = onnx.numpy_helper.to_array(tensor)
                tensor.CopyFrom(onnx.numpy_helper.from_array(value * 40, tensor.name))
        serialized: bytes = made.SerializeToString()
        return serialized

    monkeypatch.setattr(int8, "_static", ruining)
    found = int8.quantize(checkpoint, DATA, max_drop=0.02, min_agreement=0.0)
    assert bad <= set(found.float_layers)
    assert found.float_accuracy - found.accuracy <= 0.02
    found = int8.quantize(checkpoint, DATA, max_drop=1.0, min_agreement=0.97)
    assert bad <= set(found.float_layers)
    assert found.agreement >= 0.97


def coarser(model: bytes, *, times: float) -> bytes:
    """A quantised model whose steps are so many times as large."""
    made = onnx.load_from_string(model)
    for tensor in made.graph.initializer:
        if tensor.name.endswith("_scale"):
            value = np.asarray(onnx.numpy_helper.to_array(tensor) * times)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    serialized: bytes = made.SerializeToString()
    return serialized


def test_what_lies_between_layers_in_float_stays_in_float_where_that_hurts(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quantiser that ruins sums and concatenations."""
    honest = int8._static

    def ruining(*given: Any, between: bool = True, only: str | None = None, **rest: Any) -> bytes:
        made = honest(*given, between=between, only=only, **rest)
        return coarser(made, times=40) if between and only is None else made

    monkeypatch.setattr(int8, "_static", ruining)
    found = int8.quantize(checkpoint, DATA, min_agreement=0.9, max_drop=0.05)
    assert found.refusal is None
    assert found.float_between
    assert found.agreement >= 0.9


def test_eight_bits_that_cannot_do_what_is_asked_for_are_not_written(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quantiser that ruins whatever it touches."""
    honest = int8._static
    monkeypatch.setattr(int8, "_static", lambda *given, **options: coarser(honest(*given, **options), times=1000))
    with pytest.raises(
        ExportError, match=r"ask for .*--min-agreement 0\.\d+, or for --format onnx; nothing was written"
    ):
        export(checkpoint, tmp_path / "small.onnx", Wish(format="onnx-int8", min_agreement=1.0), data=DATA)
    assert not list(tmp_path.iterdir())


def test_eight_bits_need_images_of_the_networks_classes(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(ExportError, match="calibrated on training images: give --data"):
        export(checkpoint, tmp_path / "small.onnx", Wish(format="onnx-int8"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("format_", "extra"), [("pte", "executorch"), ("tflite", "litert")])
def test_other_runtimes_give_the_same_logits_or_name_what_is_missing(
    tmp_path: Path, checkpoint: Checkpoint, format_: str, extra: str
) -> None:
    write, run = phone.WRITERS[format_]
    try:
        content = write(checkpoint)
    except ExportError as error:
        assert f"pip install 'pocketnas[{extra}]'" in str(error)
        pytest.skip(f"the extra {extra} is not installed")
    images = noise(checkpoint.architecture, images=3)
    formats.largest_difference(run(content, images), checkpoint.network(), images)


def test_what_does_not_go_together_is_said() -> None:
    with pytest.raises(
        ExportError, match="--format must be one of onnx, onnx-int8, ort, torch, pte, tflite, got 'coreml'"
    ):
        Wish(format="coreml")
    with pytest.raises(ExportError, match="preprocessing goes with onnx, onnx-int8, ort only, got --format torch"):
        Wish(format="torch", preprocessing=True)


def test_a_place_that_cannot_be_written_to_is_told_first(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NasError, match="cannot be written"):
        export(checkpoint, tmp_path / "file" / "network.onnx", Wish(format="onnx"), data=DATA)
    with pytest.raises(NasError, match="a file is needed, there lies a folder already"):
        export(checkpoint, tmp_path, Wish(format="onnx-int8"), data=DATA)
    with pytest.raises(NasError, match="a folder is needed, there lies something else already"):
        export(checkpoint, tmp_path / "file", Wish(format="torch"), data=DATA)
    assert {path.name for path in tmp_path.iterdir()} == {"file"}


def test_a_folder_may_be_the_one_that_one_is_in(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "notes.py").write_text("mine")
    monkeypatch.chdir(here)
    report = export(checkpoint, Path(), Wish(format="torch"), data=DATA)
    machine, _ = write_card(checkpoint, Path(), report)
    assert {path.name for path in here.iterdir()} == {"notes.py", "model.py", "weights.pt"}
    assert {path.name for path in tmp_path.iterdir()} == {"here", "here.card.json", "here.card.md"}
    assert set(json.loads(machine.read_text())["sha256"]) == {"model.py", "weights.pt"}


def test_a_file_that_differs_is_not_written(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = random_checkpoint(small(), seed=1)
    monkeypatch.setattr(standalone, "weights", lambda _: _weights(other))
    with pytest.raises(ExportError, match="nothing was written"):
        export(checkpoint, tmp_path / "network", Wish(format="torch"), data=DATA)
    assert not list(tmp_path.iterdir())


_weights = standalone.weights


def test_the_card_tells_what_there_is(tmp_path: Path, checkpoint: Checkpoint, data: Data = DATA) -> None:
    path = tmp_path / "small.ort"
    report = export(checkpoint, path, Wish(format="ort"), data=data)
    machine, people = write_card(checkpoint, path, report)
    card = json.loads(machine.read_text())
    assert card["export"]["bytes"] == path.stat().st_size
    assert card["architecture"] == checkpoint.architecture.fingerprint
    assert list(card["sha256"]) == ["small.ort"]
    assert f"{path.stat().st_size:,} bytes" in people.read_text()
    assert {file.name for file in tmp_path.iterdir()} == {
        "small.ort",
        "small.required_operators.config",
        "small.ort.card.json",
        "small.ort.card.md",
    }

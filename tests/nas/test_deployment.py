"""An exported model does what the checkpoint does, says how to use it, and is not written if it does not."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nas import deployment
from nas.checkpoint import Checkpoint
from nas.deployment import accuracy, compare, export_onnx, first_images, noise, onnx_model, random_checkpoint, runner
from nas.errors import ExportError
from nas.evaluation import evaluate
from nas.recipe import Recipe
from nas.training import train
from searchspace.errors import NasError
from searchspace.references import reference
from tests.nas.learning import shapes, small

DATA = shapes()


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return train(small(dropout=0.2), DATA, Recipe(epochs=4, batch_size=16, flip=False)).checkpoint


@pytest.mark.parametrize("batch", [1, 5, None])
def test_the_file_gives_the_checkpoints_logits(tmp_path: Path, checkpoint: Checkpoint, batch: int | None) -> None:
    path = tmp_path / "network.onnx"
    images = first_images(DATA.test, DATA)
    export = export_onnx(checkpoint, path, images=images, batch=batch)
    model = path.read_bytes()
    assert (export.path, export.format, export.bytes) == (path, "onnx", len(model))
    got = runner(model)(images)
    with torch.inference_mode():
        wanted = checkpoint.network()(images).numpy()
    assert np.abs(got - wanted).max() == export.max_abs_diff <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("batch", [1, 7, None])
def test_its_accuracy_is_the_checkpoints(checkpoint: Checkpoint, batch: int | None) -> None:
    judged = evaluate(checkpoint.network(), DATA.test, DATA)
    assert accuracy(onnx_model(checkpoint, batch=batch), DATA.test, DATA) == judged.accuracy


def test_metadata_says_how_to_use_it(checkpoint: Checkpoint) -> None:
    model = onnx.load_from_string(onnx_model(checkpoint))
    said = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert said["architecture"] == small(dropout=0.2).fingerprint
    assert said["classes"] == list(DATA.classes)
    assert said["input"] == {"layout": "NCHW", "resolution_px": 8, "channels": 1, "mean": [0.4], "std": [0.2]}
    assert said["data"] == {"name": "shapes", "fingerprint": DATA.fingerprint}
    assert said["metrics"]["accuracy"] == checkpoint.metrics["accuracy"]


def test_a_model_that_differs_is_not_written(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = onnx_model(random_checkpoint(small(), seed=1))
    images = first_images(DATA.test, DATA)
    with pytest.raises(ExportError, match=r"within 0\.0001 of the largest, got a difference of"):
        compare(other, checkpoint.network(), images)
    monkeypatch.setattr(deployment, "onnx_model", lambda checkpoint, *, batch: other)
    with pytest.raises(ExportError):
        export_onnx(checkpoint, tmp_path / "network.onnx", images=images)
    assert not list(tmp_path.iterdir())


def test_logits_that_are_not_numbers_are_not_alike(checkpoint: Checkpoint) -> None:
    images = first_images(DATA.test, DATA)
    with pytest.raises(ExportError):
        compare(onnx_model(checkpoint), checkpoint.network(), images * float("nan"))


def test_a_full_disk_leaves_nothing(tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NasError, match="No space left on device"):
        export_onnx(checkpoint, tmp_path / "deep" / "network.onnx", images=first_images(DATA.test, DATA))
    assert not list((tmp_path / "deep").iterdir())


def test_random_weights_follow_from_the_seed_and_keep_activations_in_scale() -> None:
    architecture = reference("mobilenet_v2", resolution=32, classes=10)
    before = torch.get_rng_state()
    one, same, other = (random_checkpoint(architecture, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, same.state[name]) for name, tensor in one.state.items())
    assert not all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())
    images = noise(architecture, images=4, seed=9)
    with torch.inference_mode():
        largest = one.network()(images).abs().max().item()
    assert 0.01 < largest < 100
    compare(onnx_model(one), one.network(), images)

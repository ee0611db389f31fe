"""Checkpoints give back what went in, and refuse everything that is damaged, hostile or does not fit together."""

import errno
import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.checkpoint import Checkpoint, DataRecord, load_checkpoint, pack, save_checkpoint, unpack
from nas.errors import CheckpointError
from searchspace.architecture import Architecture
from searchspace.blocks import UIB, Conv, Fire
from searchspace.errors import NasError
from searchspace.network import Network

ARCHITECTURE = Architecture(
    (Conv(cout=8), UIB(cout=8, hidden=16, dw_mid=3, residual=True), Fire(squeeze=4, expand1x1=8, expand3x3=8)),
    resolution=8,
    channels=1,
    classes=3,
    name="small",
)
DATA = DataRecord("shapes", "abc", (0.5,), (0.25,))


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    network = Network(ARCHITECTURE)
    network(torch.randn(4, 1, 8, 8))  # moves the running statistics
    return Checkpoint(
        ARCHITECTURE, network.state_dict(), ("a", "b", "c"), DATA, {"accuracy": 0.5, "curve": [1.0, 0.5]}, {"lr": 0.1}
    )


@pytest.fixture
def path(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    path = tmp_path / "network.pt"
    save_checkpoint(path, checkpoint)
    return path


def rewrite(path: Path, **changes: Any) -> None:
    path.write_bytes(pack(unpack(path, what="checkpoint") | changes))


def test_what_is_saved_is_loaded(path: Path, checkpoint: Checkpoint) -> None:
    loaded = load_checkpoint(path)
    assert loaded.architecture == checkpoint.architecture
    assert loaded.architecture.name == "small"
    assert (loaded.classes, loaded.data, loaded.metrics, loaded.recipe) == (
        checkpoint.classes,
        checkpoint.data,
        checkpoint.metrics,
        checkpoint.recipe,
    )
    assert loaded.state.keys() == checkpoint.state.keys()
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in checkpoint.state.items())


def test_the_same_content_makes_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = tmp_path / "another name.pt"
    save_checkpoint(again, load_checkpoint(path))
    assert again.read_bytes() == path.read_bytes()


def test_network_is_in_evaluation_mode_and_separate(checkpoint: Checkpoint) -> None:
    before = torch.get_rng_state()
    network = checkpoint.network()
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    expected = Network(ARCHITECTURE).eval()
    expected.load_state_dict(checkpoint.state)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(network(images), expected(images))
    name, parameter = next(iter(network.named_parameters()))
    kept = checkpoint.state[name].clone()
    with torch.no_grad():
        parameter.add_(1)
    assert torch.equal(checkpoint.state[name], kept)
    assert parameter.requires_grad


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.999])
def test_truncated(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"network\.pt: a checkpoint is needed, got a file that is cut short"):
        load_checkpoint(path)


def test_flipped_bit(path: Path, checkpoint: Checkpoint) -> None:
    content = bytearray(path.read_bytes())
    weights = checkpoint.state["blocks.0.conv.weight"].numpy().tobytes()
    content[content.index(weights)] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(path)


class Hostile:
    """Unpickling one makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_hostile_pickle_is_refused_not_executed(path: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    content = unpack(path, what="checkpoint")
    content["metrics"] = {"accuracy": Hostile(marker)}
    path.write_bytes(pack(content))
    with pytest.raises(CheckpointError, match="could run code"):
        load_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file was not hostile after all"


def test_bare_pickle_is_refused_not_executed(tmp_path: Path) -> None:
    path, marker = tmp_path / "bare.pt", tmp_path / "marker"
    path.write_bytes(pickle.dumps(Hostile(marker)))
    with pytest.raises(CheckpointError, match="of another kind"):
        load_checkpoint(path)
    buffer = io.BytesIO()
    torch.save(Hostile(marker), buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="of another kind"):
        load_checkpoint(path)
    assert not marker.exists()


def test_other_format(path: Path) -> None:
    rewrite(path, format=99)
    with pytest.raises(CheckpointError, match="format 1 is needed, got format 99"):
        load_checkpoint(path)


def test_plain_weights_are_told_about_import(path: Path, checkpoint: Checkpoint) -> None:
    path.write_bytes(pack(checkpoint.state))
    with pytest.raises(CheckpointError, match="nas import"):
        load_checkpoint(path)


def test_other_things_than_a_mapping(path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(torch.zeros(2), buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("architecture", {"format": 1, "blocks": [], "head": {"head": "classic"}}, "at least one block"),
        ("architecture", {"format": 1, "surprise": 1}, "unknown key 'surprise'"),
        ("architecture", [], "architecture must be a mapping, got list"),
        ("state", None, "state must be a mapping"),
        ("classes", ["a", "b"], "got 2 names for 3"),
        ("classes", None, "damaged"),
        ("data", {"name": "x", "fingerprint": "", "mean": [0.5], "std": [0.0]}, "std above 0"),
        ("data", {"name": "x", "fingerprint": "", "mean": [0.5, 0.5], "std": [1.0, 1.0]}, "1 channels"),
        ("data", {"name": "x", "fingerprint": "", "mean": [float("nan")], "std": [1.0]}, "finite"),
        ("data", {"name": "x", "fingerprint": "", "mean": 1, "std": 1}, "damaged"),
        ("data", {"surprise": 1}, "damaged"),
    ],
)
def test_contradictions(path: Path, key: str, value: Any, message: str) -> None:
    rewrite(path, **{key: value})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_tensors_must_be_the_architectures(path: Path, checkpoint: Checkpoint) -> None:
    name = "blocks.0.conv.weight"
    state = dict(checkpoint.state)
    for changed, message in [
        ({key: value for key, value in state.items() if key != name}, f"lacks {name}"),
        (state | {"extra": torch.zeros(1)}, "has extra too many"),
        (state | {name: state[name][:4]}, r"shape \(8, 1, 3, 3\), got torch.float32 of \(4, 1, 3, 3\)"),
        (state | {name: state[name].double()}, "must be torch.float32"),
        (state | {name: [1.0]}, "must be a dense tensor, got list"),
        ({}, "and 41 more"),
    ]:
        rewrite(path, state=changed)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path)


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt: a checkpoint file is needed, got none \(No such file"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_old_file(path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NasError, match="No space left on device"):
        save_checkpoint(path, checkpoint)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]

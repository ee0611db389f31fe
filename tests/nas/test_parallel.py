"""Two processes under torchrun train one network, step by step as a textbook says."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.checkpoint import load_checkpoint
from nas.data import Augmentation, Batches, Data, load_data
from nas.errors import TrainingError
from nas.optimisation import augmentation, learning_rate, make_optimizer
from nas.parallel import Ranks
from nas.recipe import Recipe
from nas.training import train
from searchspace.network import Network
from tests.nas.learning import shapes, small

DATA = shapes()
ROOT = Path(__file__).parents[2]


def by_hand(data: Data, recipe: Recipe) -> dict[str, Tensor]:
    """What two processes come to: gradients are the mean of both halves', running statistics those of the first half."""
    architecture = dataclasses.replace(small(), classes=10)
    start = train(architecture, data, dataclasses.replace(recipe, images=32, lr=1e-12)).checkpoint
    network = Network(architecture).train()
    fresh = {name: one for name, one in start.state.items() if "running" not in name and "tracked" not in name}
    network.load_state_dict(fresh, strict=False)
    optimizer = make_optimizer(network, recipe)
    changes = augmentation(recipe, data)
    batches = Batches(split=data.train, data=data, batch_size=32, augment=changes)
    for step, (images, labels) in enumerate(batches.stream(start=0, images=256)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, steps=8)
        before = {name: one.clone() for name, one in network.named_buffers()}
        for part in (slice(16, 32), slice(0, 16)):
            network.load_state_dict(before, strict=False)
            (F.cross_entropy(network(images[part]), labels[part]) / 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    return network.state_dict()


def test_parts_of_a_batch_are_the_batch() -> None:
    settings = {"split": DATA.train, "data": DATA, "batch_size": 10, "augment": Augmentation(), "seed": 4}
    whole = Batches(**settings).stream(start=37, images=95)  # type: ignore[arg-type]
    parts = [Batches(**settings, part=(rank, 3)).stream(start=37, images=95) for rank in range(3)]  # type: ignore[arg-type]
    for (images, labels), *pieces in zip(whole, *parts, strict=True):
        assert torch.equal(images, torch.cat([piece[0] for piece in pieces]))
        assert torch.equal(labels, torch.cat([piece[1] for piece in pieces]))


def in_two_processes(folder: Path) -> dict[str, Any]:
    """What `nas train` says of a small network that two processes train together in a folder."""
    (folder / "net.json").write_text(small().to_json())
    (folder / "how.yaml").write_text("images: 256\nbatch_size: 32\nlr: 0.05\n")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "nas", "train", "net.json", "--data", "digits", "--recipe", "how.yaml", "--threads", "1", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, *command, "--out", "run"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    (line,) = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(line)
    return told


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = in_two_processes(tmp_path)
    assert told["images"] == 256
    trained = load_checkpoint(tmp_path / "run" / "last.pt").state
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = Recipe(images=256, batch_size=32, lr=0.05)
    for name, tensor in by_hand(load_data("digits", resolution=8), recipe).items():
        torch.testing.assert_close(trained[name], tensor, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_a_run_that_two_processes_have_finished_is_taken_as_it_is(tmp_path: Path) -> None:
    assert in_two_processes(tmp_path) == in_two_processes(tmp_path)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(TrainingError, match="divisible among 3 processes, got 16 images; change batch_size"):
        train(small(), DATA, Recipe(images=32, batch_size=16), ranks=Ranks(0, 3))

"""What share of a training step is not forward and backward: batches, optimiser, book-keeping.

Every part of `nas.training`'s loop runs as in a search; only the method that does forward and backward is timed from outside.
Kinds of network take turns, so that a change of the machine's mood meets all of them.

    python experiments/benchmarks/2026-11-22_training_step/run.py
"""

import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import nas.training
from nas.data import Data, load_data
from nas.recipe import Recipe
from searchspace.architecture import Architecture, lower
from searchspace.blocks import UIB, Conv, Fire, FusedBottleneck

HERE = Path(__file__).parent
RESOLUTION, BATCH, STEPS, ROUNDS = 32, 64, 80, 5  # 80 steps: a first rung of some 5,000 images
IMAGES = (
    45_000  # as many as CIFAR-10's training split: batches are gathered from all over a memory larger than any cache
)
RECIPES = {
    "sgd": Recipe(images=STEPS * BATCH, batch_size=BATCH),
    "sgd with average": Recipe(images=STEPS * BATCH, batch_size=BATCH, ema_decay=0.998),
    "adamw": Recipe(images=STEPS * BATCH, batch_size=BATCH, optimizer="adamw", lr=1e-3),
}


def main() -> None:
    torch.set_num_threads(1)  # candidates train side by side, one thread each
    with tempfile.TemporaryDirectory() as folder:
        data = noise(Path(folder))
    records = []
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for turn in range(ROUNDS + 1):
        for kind, architecture in architectures().items():
            for name, recipe in RECIPES.items():
                measured = measure(architecture, data, recipe)
                if turn:  # the first warms up
                    samples.setdefault((kind, name), []).append(measured)
    for (kind, name), pairs in samples.items():
        graph = lower(architectures()[kind])
        shares = [1 - inside / whole for whole, inside in pairs]
        records.append(
            {
                "network": kind,
                "recipe": name,
                "macs": graph.macs,
                "params": graph.params,
                "images_per_second": round(STEPS * BATCH / statistics.median(whole for whole, _ in pairs), 1),
                "outside_share_median": round(statistics.median(shares), 4),
                "outside_share_all": [round(share, 4) for share in shares],
            }
        )
    machine = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[1],
        "torch": torch.__version__,
        "threads": 1,
    }
    lines = [machine, *records]
    (HERE / "result.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for record in records:
        print(f"{record['network']:6} {record['recipe']:18} {record['images_per_second']:8} images/s", end=" ")
        print(f"outside forward and backward: {record['outside_share_median']:.2%}")


def measure(architecture: Architecture, data: Data, recipe: Recipe) -> tuple[float, float]:
    """Seconds of all training steps, and of forward and backward in them."""
    inside = 0.0
    plain = nas.training._Run.gradients

    def timed(run: nas.training._Run, images: Tensor, labels: Tensor) -> None:
        nonlocal inside
        began = time.perf_counter()
        plain(run, images, labels)
        inside += time.perf_counter() - began

    nas.training._Run.gradients = timed  # type: ignore[method-assign]
    try:
        result = nas.training.train(architecture, data, recipe)
    finally:
        nas.training._Run.gradients = plain  # type: ignore[method-assign]
    return result.seconds, inside


def architectures() -> dict[str, Architecture]:
    """Three kinds of candidate of 7 to 12 million MACs."""
    return {
        "uib": network(
            Conv(cout=16),
            UIB(cout=24, hidden=96, dw_mid=3, stride=2),
            UIB(cout=24, hidden=96, dw_start=3, dw_mid=3, residual=True),
            UIB(cout=48, hidden=192, dw_start=3, dw_mid=3, stride=2),
            UIB(cout=48, hidden=192, dw_start=3, dw_mid=5, residual=True),
            UIB(cout=96, hidden=288, dw_mid=5, stride=2),
            UIB(cout=96, hidden=384, dw_mid=3, residual=True),
        ),
        "fire": network(
            Conv(cout=32, stride=2),
            Fire(squeeze=16, expand1x1=32, expand3x3=32),
            Fire(squeeze=16, expand1x1=32, expand3x3=32, bypass="identity"),
            Conv(cout=64, kernel=1, stride=2),
            Fire(squeeze=32, expand1x1=80, expand3x3=80),
            Fire(squeeze=32, expand1x1=80, expand3x3=80, bypass="identity"),
            Fire(squeeze=48, expand1x1=128, expand3x3=128),
        ),
        "fused": network(
            Conv(cout=16, stride=2),
            FusedBottleneck(cout=24, hidden=48),
            FusedBottleneck(cout=48, hidden=96, stride=2),
            FusedBottleneck(cout=48, hidden=96, residual=True),
            FusedBottleneck(cout=96, hidden=192, stride=2),
            FusedBottleneck(cout=96, hidden=192, residual=True),
        ),
    }


def network(*blocks: object) -> Architecture:
    return Architecture(blocks, resolution=RESOLUTION, classes=10)  # type: ignore[arg-type]


def noise(folder: Path) -> Data:
    """Images whose content does not matter here, read as a user's would be."""
    source = np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        return source.integers(0, 256, (count, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)

    np.savez(
        folder / "noise.npz",
        x_train=images(IMAGES),
        y_train=np.arange(IMAGES) % 10,
        x_test=images(BATCH),
        y_test=np.arange(BATCH) % 10,
    )
    return load_data(str(folder / "noise.npz"), validation=0.01, cache=folder / "cache")


if __name__ == "__main__":
    main()

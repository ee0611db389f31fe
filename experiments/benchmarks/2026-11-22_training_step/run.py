"""What share of a training step is not forward and backward: batches, optimiser, book-keeping.

Every part of `nas.training`'s loop runs as in a search; only the method that does forward and backward is timed from outside.
Kinds of network take turns, so that a change of the machine's mood meets all of them.

    python -m experiments.benchmarks.2026-11-22_training_step.run
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
from experiments.kinds import RESOLUTION, architectures
from nas.data import Data, load_data
from nas.recipe import Recipe
from searchspace.architecture import Architecture, lower

HERE = Path(__file__).parent
BATCH, STEPS, ROUNDS = 64, 80, 5  # 80 steps: a first rung of some 5,000 images
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

    def timed(run: nas.training._Run, *batch: Tensor | None) -> None:
        nonlocal inside
        began = time.perf_counter()
        plain(run, *batch)  # type: ignore[arg-type]
        inside += time.perf_counter() - began

    nas.training._Run.gradients = timed  # type: ignore[method-assign]
    try:
        result = nas.training.train(architecture, data, recipe)
    finally:
        nas.training._Run.gradients = plain  # type: ignore[method-assign]
    return result.seconds, inside


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

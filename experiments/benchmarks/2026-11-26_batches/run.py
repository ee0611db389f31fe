"""What of a training step is not forward and backward, with images normalised by lines of pixels and, as before, by pixels.

    python -m experiments.benchmarks.2026-11-26_batches.run --data CIFAR10

Both ways and three kinds of network take turns in one process, one thread. CPU seconds are counted, so that other work on the
machine does not count.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nas.training
from experiments.kinds import RESOLUTION, architectures
from experiments.record import write_record
from nas.data import Augmentation, Batches, Data, load_data
from nas.data.augmentation import source_pixels
from nas.recipe import Recipe

HERE = Path(__file__).parent
BATCH, STEPS, WARM, ROUNDS = 64, 24, 4, 5
BY_LINES = Batches._batch


def by_pixels(batches: Batches, planned: Tensor) -> tuple[Tensor, Tensor]:
    """`Batches._batch` as it was: mean and deviation are broadcast over the three numbers of each pixel."""
    if batches.augment is None:  # of the validation split, which is not counted
        return BY_LINES(batches, planned)
    rows, size = planned[:, 0], batches.data.resolution
    pixels = source_pixels(planned[:, 1:], size, magnitude=9.0) + rows[:, None, None] * (size * size)
    chosen = batches._images.view(-1, 3).index_select(0, pixels.view(-1)).view(-1, size, size, 3)
    mean, std = (255 * torch.tensor(values).view(1, -1, 1, 1) for values in (batches.data.mean, batches.data.std))
    return chosen.permute(0, 3, 1, 2).to(torch.float32).sub_(mean).mul_(1 / std), batches._labels[rows]


WAYS: dict[str, Callable[..., Any]] = {"by pixels": by_pixels, "by lines": BY_LINES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data(given.data, resolution=RESOLUTION)
    data = dataclasses.replace(data, validation=data.validation.take(slice(BATCH)))  # judging is not counted
    check(data)
    seen: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for kind in architectures():
            for way in WAYS:
                seen.setdefault((kind, way), []).append(sample(kind, way, data))
    lines = []
    for (kind, way), samples in seen.items():
        line: dict[str, Any] = {"network": kind, "way": way, "n": len(samples)}
        for key in samples[0]:
            values = [round(one[key], 5) for one in samples]
            line |= {key: statistics.median(values), f"{key}_all": values}
        lines.append(line)
        print({key: value for key, value in line.items() if not key.endswith("_all")})
    write_record(HERE / "result.jsonl", lines)


def check(data: Data) -> None:
    """Both ways give the same numbers."""
    batches = Batches(split=data.train, data=data, batch_size=BATCH, augment=Augmentation())
    plan = batches._plan(0)[:BATCH]
    assert torch.equal(by_pixels(batches, plan)[0], batches._batch(plan)[0])


def sample(kind: str, way: str, data: Data) -> dict[str, float]:
    """CPU milliseconds of a step and of its batch, and the share of a step that is outside of forward and backward."""
    spent = {"gradients": 0.0, "batch": 0.0}
    moments: list[tuple[float, float, float]] = []

    def timed(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any) -> Any:
            began = time.process_time()
            result = plain(*args)
            spent[name] += time.process_time() - began
            return result

        return measured

    def watch() -> bool:
        moments.append((time.process_time(), spent["gradients"], spent["batch"]))
        return False

    plain = nas.training._Run.gradients, Batches._batch
    nas.training._Run.gradients = timed("gradients", plain[0])  # type: ignore[method-assign]
    Batches._batch = timed("batch", WAYS[way])  # type: ignore[method-assign]
    try:
        recipe = Recipe(images=STEPS * BATCH, batch_size=BATCH, ema_decay=0.998)
        nas.training.train(architectures()[kind], data, recipe, stop=watch)
    finally:
        nas.training._Run.gradients, Batches._batch = plain  # type: ignore[method-assign]
    whole, gradients, batch = (last - first for first, last in zip(moments[WARM - 1], moments[-1], strict=True))
    steps = STEPS - WARM
    return {
        "step_ms": 1000 * whole / steps,
        "batch_ms": 1000 * batch / steps,
        "outside_share": 1 - gradients / whole,
    }


if __name__ == "__main__":
    main()

"""How much slower uniform scaling is at NetAdapt's accuracy: larger and larger uniform networks, until one is as accurate.

The networks, images and fine-tunes are those of `2026-11-25_netadapt`, in whose WORK folder everything lies; every uniform
network sees as many images as NetAdapt's of that seed and budget did in all.

    python -m experiments.benchmarks.2026-11-26_netadapt_faster.run tune    WORK --data DATA --seed 0   # and 1, 2
    python -m experiments.benchmarks.2026-11-26_netadapt_faster.run measure WORK                        # some quiet minutes
    python -m experiments.benchmarks.2026-11-26_netadapt_faster.run record  WORK

Each part goes on where it was interrupted.
"""

import argparse
import importlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from experiments.record import write_record
from latency.comparison import compare
from nas.checkpoint import load_checkpoint
from nas.deployment import onnx_model

base = importlib.import_module("experiments.benchmarks.2026-11-25_netadapt.run")

HERE = Path(__file__).parent
MULTIPLES = (
    1.0,
    1.1,
    1.2,
    1.3,
    1.4,
    1.5,
    1.6,
)  # of NetAdapt's predicted latency: the nearest uniform network above each


def larger(work: Any, seed: int, budget: float) -> list[Path]:
    """Uniform networks from about NetAdapt's latency on, by latency; the start ends them where it is not slow enough."""
    goal_ms = work.model.predict(load_checkpoint(work.trimmed(seed, budget)).architecture).ms
    sizes = [(one["ms"], one["file"]) for one in json.loads((work.folder / "sizes.json").read_text())]
    start = work.folder / "start" / "network.pt"
    uniform = sorted((ms, file) for ms, file in sizes if Path(file).name.startswith("uniform."))
    found: list[Path] = []
    for multiple in MULTIPLES:
        found.append(next((Path(file) for ms, file in uniform if ms >= multiple * goal_ms), start))
    return list(dict.fromkeys(found))


def tuned_file(work: Any, seed: int, budget: float, before: Path) -> Path:
    """Where a fine-tuned uniform network is kept."""
    return Path(work.seed(seed)) / f"faster.{budget}.{before.stem}.pt"


def tune(work: Any, seed: int) -> None:
    """Fine-tune the uniform networks on as many images as NetAdapt's saw."""
    data = work.data()
    for budget in work.budgets:
        images = base.LONG + base.short_images(work.steps(seed, budget))
        for before in larger(work, seed, budget):
            result = tuned_file(work, seed, budget, before)
            if not result.exists():
                accuracy = base.tuned(before, result, data, images, seed)
                print(seed, budget, before.stem, images, f"{accuracy:.4f}", flush=True)


def measure(work: Any, seed: int) -> None:
    """Measure NetAdapt's networks, the uniform ones and the start, all in turns."""
    every = [(each, budget) for each in base.SEEDS for budget in work.budgets]
    paths = [path for one in every for path in (work.trimmed(*one), *larger(work, *one))]
    paths = list(dict.fromkeys([work.folder / "start" / "network.pt", *paths]))
    models = [onnx_model(load_checkpoint(path)) for path in paths]
    timings = base.TARGET.open().measure(models, settings=base.TARGET.settings, effort=base.EFFORT)
    found = {
        str(path): {"ms": timing.low_ms, "stable": timing.stable, "half_difference": timing.half_difference}
        | {"of_start": compare(timing, timings[0]).ratio}
        for path, timing in zip(paths, timings, strict=True)
    }
    (work.folder / "timings_faster.json").write_text(json.dumps(found, indent=1))


def crossing(points: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """Milliseconds at which the line through (ms, accuracy) points first comes to an accuracy; None if it never does."""
    if points[0][1] >= accuracy:
        return points[0][0]
    for (before_ms, before), (ms, reached) in pairwise(points):
        if reached >= accuracy:
            return before_ms + (ms - before_ms) * (accuracy - before) / (reached - before)
    return None


def record(work: Any, seed: int) -> None:
    """Write the record."""
    timings = json.loads((work.folder / "timings_faster.json").read_text())
    lines: list[dict[str, Any]] = []
    for each in base.SEEDS:
        for budget in work.budgets:
            ours = load_checkpoint(base.tuned_file(work.seed(each), budget, "netadapt", "trimmed", base.LONG))
            own = timings[str(work.trimmed(each, budget))]
            points = []
            for before in larger(work, each, budget):
                network, timing = load_checkpoint(tuned_file(work, each, budget, before)), timings[str(before)]
                points.append((timing["ms"], network.metrics["test_accuracy"]))
                told = {"seed": each, "budget": budget, "size": before.stem, "images": network.metrics["images"]}
                lines.append({"kind": "uniform", **told, "accuracy": points[-1][1], **timing})
            points.sort()
            accuracy = ours.metrics["test_accuracy"]
            equal = crossing(points, accuracy)
            lines.append(
                {"kind": "netadapt", "seed": each, "budget": budget, "accuracy": accuracy, **own}
                | {"uniform_ms": equal, "faster": None if equal is None else equal / own["ms"]}
                | {"faster_at_least": points[-1][0] / own["ms"] if equal is None else None}
            )
    write_record(HERE / "result.jsonl", lines)


def main() -> None:
    parts = {part.__name__: part for part in (tune, measure, record)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", default="")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts[arguments.part](base.Work(arguments.work, arguments.data, base.BUDGETS), arguments.seed)


if __name__ == "__main__":
    main()

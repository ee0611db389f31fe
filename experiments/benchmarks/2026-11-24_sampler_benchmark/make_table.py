"""Makes the benchmark's table: architectures of `space.yaml`, each trained alike on CIFAR-10, with its score on every rung.

    python experiments/benchmarks/2026-11-24_sampler_benchmark/make_table.py DATA [--part 0/2]

Each part writes a file of its own under `--work`, a row at a time, and goes on where it was stopped. `merge_table.py` makes
`table.jsonl` of them.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nas.data import Data, load_data
from nas.recipe import load_recipe
from nas.survey import RecordingSuggest
from nas.training import train
from searchspace.architecture import Architecture, lower
from searchspace.sampling import FixedSuggest, RandomSuggest
from searchspace.space import Space, load_space

HERE = Path(__file__).parent
RUNGS = (1_000, 3_000, 8_000)  # images on each, a schedule of its own, starting from the weights of the one before
VALIDATION = 2_500  # images
RANDOM, SPREAD, REPEATED = 75, 60, 18
POOL = 20_000


def load_benchmark_space() -> Space:
    """The table's space."""
    return load_space(str(HERE / "space.yaml")).adapt(channels=3, classes=10)


def rows(space: Space) -> Iterator[dict[str, Any]]:
    """What is trained, in this order: networks drawn at random, networks spread evenly over log MACs, some again."""
    source = RandomSuggest(2026)
    recorders = []
    for _ in range(POOL):
        recorder = RecordingSuggest(source)
        macs = lower(space.sample(recorder)).macs
        recorders.append((macs, recorder.answers))
    drawn = [answers for _, answers in recorders[:RANDOM]]
    rest = sorted(recorders[RANDOM:], key=lambda pair: pair[0])
    low, high = math.log(rest[0][0]), math.log(rest[-1][0])
    spread = []
    for index in range(SPREAD):
        goal = low + (high - low) * index / (SPREAD - 1)
        nearest = min(range(len(rest)), key=lambda at: abs(math.log(rest[at][0]) - goal))
        spread.append(rest.pop(nearest)[1])
    for index in range(max(RANDOM, SPREAD)):  # taking turns, so that a table stopped half-way is still balanced
        if index < RANDOM:
            yield {"kind": "random", "seed": 0, "answers": drawn[index]}
        if index < SPREAD:
            yield {"kind": "spread", "seed": 0, "answers": spread[index]}
    for index in range(REPEATED):
        yield {"kind": "repeated", "seed": 1, "answers": (spread[3 * index] if index % 2 else drawn[3 * index])}


def climb(architecture: Architecture, data: Data, *, seed: int) -> list[dict[str, float]]:
    """Scores of a network on each rung."""
    recipe = load_recipe("brief")
    start: Any = architecture
    seen = 0
    scores = []
    for images in RUNGS:
        result = train(
            start, data, dataclasses.replace(recipe, images=images, epochs=None), seed=seed, skip_images=seen
        )
        start = result.checkpoint
        seen += images
        tail = result.losses[-max(1, len(result.losses) // 10) :]
        scores.append(
            {
                "accuracy": round(result.accuracy, 4),
                "loss": round(result.loss, 4),
                "training_loss": round(sum(tail) / len(tail), 4),
                "seconds": round(result.seconds, 2),
            }
        )
    return scores


def main() -> None:
    """Train what is missing of one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/sampler_benchmark"))
    parser.add_argument("--part", default="0/1", help="which of how many parts")
    parser.add_argument("--rows", type=Path, help="JSON lines of kind, seed and answers to train instead")
    parser.add_argument("--name", default="table", help="of the part's files")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    torch.set_num_threads(1)
    space = load_benchmark_space()
    data = load_data(asked.data, resolution=space.resolution[0])
    data = dataclasses.replace(data, validation=data.validation.take(slice(VALIDATION)))
    asked.work.mkdir(parents=True, exist_ok=True)
    path = asked.work / f"{asked.name}.{part}of{parts}.jsonl"
    done = len(path.read_text().splitlines()) if path.exists() else 0
    wanted = map(json.loads, asked.rows.read_text().splitlines()) if asked.rows else rows(space)
    own = [row for index, row in enumerate(wanted) if index % parts == part]
    for row in own[done:]:
        architecture = space.sample(FixedSuggest(row["answers"]))
        graph = lower(architecture)
        scores = climb(architecture, data, seed=row["seed"])
        whole = row | {
            "fingerprint": architecture.fingerprint,
            "macs": graph.macs,
            "params": graph.params,
            "rungs": scores,
        }
        with path.open("a") as file:
            file.write(json.dumps(whole) + "\n")


if __name__ == "__main__":
    main()

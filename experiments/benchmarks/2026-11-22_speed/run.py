"""How fast candidates are looked at before training: drawn, lowered, predicted; looked up by table; turned into ONNX.

Needs the host's latency model (`nas profile --target host`). Rounds of all measurements take turns.

    python -m experiments.benchmarks.2026-11-22_speed.run
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record import write_record
from latency.store import load_model
from latency.table import tabulate
from latency.target import load_target
from searchspace.architecture import lower
from searchspace.onnx_graph import random_weights, to_onnx
from searchspace.references import reference
from searchspace.sampling import RandomSuggest
from searchspace.space import load_space

ROUNDS = 9
NETWORKS = 5_000
LOOKED_UP = 2_000_000
EMITTED = 12  # one after the other, as for a job of profiling


def main() -> None:
    model = load_model(load_target("host"))
    space = load_space("default").adapt(channels=3, classes=10, resolution=32)
    table = tabulate(model, space)
    picks = np.stack([np.random.default_rng(0).integers(0, part.shape[1], LOOKED_UP) for part in table.ms], axis=1)
    mobilenet = reference("mobilenet_v2")
    source = RandomSuggest(0)

    def predicted() -> None:
        for _ in range(NETWORKS):
            model.predict_ms(space.sample(source))

    def emitted() -> None:
        for _ in range(EMITTED):
            graph = lower(mobilenet)
            to_onnx(graph, random_weights(graph))

    tasks: dict[str, tuple[Callable[[], Any], int]] = {
        "drawn, lowered and predicted": (predicted, NETWORKS),
        "looked up in the table": (lambda: table.lookup_ms(picks), LOOKED_UP),
        "MobileNetV2 to ONNX bytes": (emitted, EMITTED),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(ROUNDS + 1):
        for name, (task, _) in tasks.items():
            began = time.perf_counter()
            task()
            if turn:  # the first fills caches: a search meets the same blocks again and again
                seconds[name].append(time.perf_counter() - began)
    results = []
    for name, (_, count) in tasks.items():
        median = statistics.median(seconds[name])
        results.append(
            {
                "task": name,
                "count": count,
                "seconds": [round(value, 5) for value in seconds[name]],
                "per_second": round(count / median, 1),
                "median_ms_each": 1e3 * median / count,
            }
        )
        print(f"{name}: {count / median:,.0f} a second, {1e3 * median / count:.4g} ms each (median of {ROUNDS})")
    write_record(Path(__file__).with_name("result.jsonl"), results)


if __name__ == "__main__":
    main()

"""Makes `result.jsonl` of the simulations that `run.py` wrote: medians and quartiles for each way of searching.

python experiments/benchmarks/2026-11-24_sampler_benchmark/summary.py runs/sampler_benchmark/simulated.*.jsonl
"""

import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from make_table import HERE, RUNGS
from run import SHARE, TRIALS
from surrogate import TableSurrogate, read_noise, read_table

from experiments.record import write_record

CHANCE = "optuna random"
WHOLE = TRIALS * sum(RUNGS)  # images of a search that stops nobody
COLUMNS = {True: {"means": 1, "observed": 3}, False: {"means": 2, "observed": 4}}
"""Of a trail's entries, for searches of the front and of the best: how the outcome is valued; see `run._scored`."""


def results(lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A line for each way of searching and of valuing its outcome."""
    groups: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        groups[line["key"].rpartition("|")[0]][line["seed"]] = line
    for key, members in sorted(groups.items()):
        pareto = next(iter(members.values()))["pareto"]
        kind = "front" if pareto else "best"
        for valued, column in COLUMNS[pareto].items():
            chance, alone = groups[f"{CHANCE}|{kind}|none|one"], groups[f"auto|{kind}|none|one"]
            found = {
                "search": key,
                "measure": "hypervolume" if pareto else "best accuracy",
                "valued_by": valued,
                "seeds": len(members),
                "end": _quartiles([_end(one, column) for one in members.values()]),
                "third": _quartiles([_at(one, column, WHOLE / 3) for one in members.values()]),
                "images": _share([_images(one) / WHOLE for one in members.values()]),
                "share_of_cost_to_chance_s_end": _reaching(members, chance, column),
            }
            if key.startswith("auto") and "|none|" not in key:
                found["images_saved"] = round(
                    1 - float(np.median([_images(one) / WHOLE for one in members.values()])), 3
                )
                found[f"at_{SHARE:g}_of_the_cost"] = _quartiles(
                    [_at(one, column, SHARE * WHOLE) for one in members.values()]
                )
                found["share_of_cost_to_the_end_without_stopping"] = _reaching(members, alone, column)
            yield found


def _images(one: dict[str, Any]) -> float:
    """Images of the first TRIALS candidates."""
    return float(one["images_of_trials"])


def _end(one: dict[str, Any], column: int) -> float:
    """The value once TRIALS candidates were tried."""
    return _at(one, column, _images(one))


def _at(one: dict[str, Any], column: int, images: float) -> float:
    """The value after so many images."""
    return float(([point[column] for point in one["trail"] if point[0] <= images] or [0.0])[-1])


def _reaching(members: dict[int, dict[str, Any]], others: dict[int, dict[str, Any]], column: int) -> dict[str, Any]:
    """At which share of a whole search's images each seed first has what the other search of the same seed ends with."""
    shares = []
    for seed, one in members.items():
        if seed in others:
            goal = _end(others[seed], column)
            reached = [point[0] / WHOLE for point in one["trail"] if point[column] >= goal]
            shares.append(reached[0] if reached else math.inf)
    return _share(shares)


def _quartiles(values: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, q)), 5) for name, q in (("q1", 0.25), ("median", 0.5), ("q3", 0.75))}


def _share(values: Sequence[float]) -> dict[str, Any]:
    """Median and all values, ascending; None: never."""
    plain = [None if math.isinf(value) else round(value, 3) for value in sorted(values)]
    return {"median": plain[len(plain) // 2] if len(plain) % 2 else _middle(plain), "all": plain}


def _middle(values: Sequence[float | None]) -> float | None:
    if not values:
        return None
    low, high = values[len(values) // 2 - 1], values[len(values) // 2]
    return None if low is None or high is None else round((low + high) / 2, 3)


def main() -> None:
    lines = [json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text().splitlines()]
    surrogate = TableSurrogate(tuple(read_table()))
    facts = {
        "table": len(surrogate.rows),
        "surrogate_held_out_tau": [round(tau, 3) for tau in surrogate.taus()],
        "surrogate_residuals": surrogate.residuals.std(axis=0).round(4).tolist(),
        "noise_of_training": read_noise(),
    }
    write_record(HERE / "result.jsonl", [facts, *results(lines)])


if __name__ == "__main__":
    main()

"""Makes `result.jsonl` of the simulations that `run.py` wrote: medians and quartiles for each way of searching.

python experiments/benchmarks/2026-11-24_sampler_benchmark/summary.py runs/sampler_benchmark/simulated.*.jsonl
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from make_table import HERE
from surrogate import TableSurrogate, read_table

from experiments.record import write_record


def results() -> Iterator[dict[str, Any]]:
    lines = [json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text().splitlines()]
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["key"].rpartition("|")[0]].append(line)
    for key, members in sorted(groups.items()):
        column = 1 if members[0]["pareto"] else 2
        chance = {one["seed"]: one for one in groups[f"optuna random|{'front' if column == 1 else 'best'}|none|one"]}
        shares = []
        for one in members:
            other = chance.get(one["seed"])
            if other is not None:
                goal = max(point[column] for point in other["trail"])
                reached = [point[0] for point in one["trail"] if point[column] >= goal]
                shares.append(reached[0] / other["images"] if reached else float("inf"))
        ends = [one["trail"][-1][column] for one in members]
        yield {
            "search": key,
            "measure": "hypervolume" if column == 1 else "best accuracy",
            "seeds": len(members),
            "end": {
                name: round(float(np.quantile(ends, q)), 5) for name, q in (("q1", 0.25), ("median", 0.5), ("q3", 0.75))
            },
            "images": round(float(np.median([one["images"] for one in members]))),
            "share_of_chance_cost_to_its_best": sorted(
                None if np.isinf(share) else round(share, 3) for share in shares if share
            )
            if all(np.isfinite(shares))
            else [None if np.isinf(share) else round(share, 3) for share in shares],
        }


def main() -> None:
    surrogate = TableSurrogate(tuple(read_table()))
    facts = {"table": len(surrogate.rows), "surrogate_held_out_tau": [round(tau, 3) for tau in surrogate.taus()]}
    write_record(HERE / "result.jsonl", [facts, *results()])


if __name__ == "__main__":
    main()

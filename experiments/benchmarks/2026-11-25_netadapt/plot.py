"""Draws the record: accuracy against measured milliseconds, and NetAdapt's families step by step (needs the extra `plots`).

python experiments/benchmarks/2026-11-25_netadapt/plot.py
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
COLOURS = {
    "netadapt": "#3f83d6",
    "uniform": "#d97b29",
    "torch-pruning group norm": "#3a9e74",
    "torch-pruning taylor": "#b05fc0",
}


def main() -> None:
    lines = [json.loads(line) for line in (HERE / "result.jsonl").read_text().splitlines()]
    results = [line for line in lines if line.get("kind") == "result"]
    steps = [line for line in lines if line.get("kind") == "step"]
    (start,) = [line for line in lines if line.get("kind") == "start"]
    _, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), sharey=False, layout="constrained")
    for method, colour in COLOURS.items():
        found = [line for line in results if line["method"] == method]
        left.scatter(
            [line["ms"] for line in found], [100 * line["accuracy"] for line in found], s=22, color=colour, label=method
        )
    left.scatter(start["ms"], 100 * start["accuracy"], marker="*", s=90, color="black", label="start")
    left.set(xlabel="measured ms", ylabel="accuracy on the test split, %", title="After the long fine-tunes")
    left.legend(fontsize=8)
    least = min(line["budget"] for line in steps)  # its run shares the first steps of the others
    for seed in sorted({line["seed"] for line in steps}):
        family = [line for line in steps if line["seed"] == seed and line["budget"] == least]
        ms = [line["measured_ms"] or line["predicted_ms"] for line in family]
        right.plot(ms, [100 * line["accuracy"] for line in family], marker="o", markersize=3, label=f"seed {seed}")
    right.set(xlabel="ms", ylabel="accuracy on the hold-out split, %", title="NetAdapt's families, a network a step")
    right.legend(fontsize=8)
    plt.savefig(HERE / "families.svg")


if __name__ == "__main__":
    main()

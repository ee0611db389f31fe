"""Reads the record: NetAdapt's networks beside what each rival has at the same measured latency and at the same accuracy.

python experiments/benchmarks/2026-11-25_netadapt/table.py
"""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RIVALS = ("uniform", "torch-pruning group norm", "torch-pruning taylor")

Line = Mapping[str, Any]


def main() -> None:
    lines = [json.loads(line) for line in (HERE / "result.jsonl").read_text().splitlines()]
    results = [line for line in lines if line.get("kind") == "result"]
    (start,) = [line for line in lines if line.get("kind") == "start"]
    print(f"start: {100 * start['accuracy']:.2f} %, {start['ms']:.4f} ms\n")
    for long in sorted({line["long"] for line in results}):
        print(f"long fine-tune: {long} images")
        compare([line for line in results if line["long"] == long])
        print()
    for line in budgets([line for line in results if line["long"] == min(one["long"] for one in results)], start):
        print(line)
    print()
    for line in costs(lines):
        print(line)


def compare(results: Sequence[Line]) -> None:
    """NetAdapt beside its rivals, after fine-tunes of one length."""
    for budget in sorted({line["budget"] for line in results}, reverse=True):
        ours = {line["seed"]: line for line in results if line["budget"] == budget and line["method"] == "netadapt"}
        row(budget, "netadapt", list(ours.values()))
        for rival in RIVALS:
            sizes = [line for line in results if line["budget"] == budget and line["method"] == rival]
            for size in ("smaller", "larger"):
                row(budget, f"{rival}, {size}", [line for line in sizes if line["size"] == size])
            for seed, mine in sorted(ours.items()):
                pair = sorted((line for line in sizes if line["seed"] == seed), key=lambda line: float(line["ms"]))
                if len(pair) == 2:
                    print(f"    seed {seed}: {versus(mine, *pair)}")


def row(budget: float, name: str, found: Sequence[Line]) -> None:
    if found:
        accuracy, ms = ([line[key] for line in found] for key in ("accuracy", "ms"))
        print(
            f"| {budget} | {name} | {100 * statistics.mean(accuracy):.2f} ({100 * min(accuracy):.2f}–{100 * max(accuracy):.2f}) "
            f"| {statistics.mean(ms):.4f} ({min(ms):.4f}–{max(ms):.4f}) "
            f"| {statistics.mean(line['macs'] for line in found) / 1e6:.2f} | n {len(found)} |"
        )


def versus(mine: Line, smaller: Line, larger: Line) -> str:
    """Points ahead at the same latency, and times as fast at the same accuracy, both on the line between the rival's sizes."""
    slope = (larger["accuracy"] - smaller["accuracy"]) / math.log(larger["ms"] / smaller["ms"])
    there = smaller["accuracy"] + slope * math.log(mine["ms"] / smaller["ms"])
    inside = smaller["ms"] <= mine["ms"] <= larger["ms"]
    told = f"{100 * (mine['accuracy'] - there):+.2f} points at equal latency{'' if inside else ' (extrapolated)'}"
    if mine["accuracy"] > larger["accuracy"]:
        return f"{told}; {larger['ms'] / mine['ms']:.2f} times as fast as its larger size, which is less accurate"
    alike_ms = smaller["ms"] * math.exp((mine["accuracy"] - smaller["accuracy"]) / slope)
    return f"{told}; {alike_ms / mine['ms']:.2f} times as fast at equal accuracy"


def budgets(results: Sequence[Line], start: Line) -> Iterator[str]:
    """Whether budgets are met on the device: measured in the run, and of the start's time in the measurement of all."""
    for line in results:
        if line["method"] != "netadapt":
            continue
        below, above = (line[end] / line["predicted_ms"] - 1 for end in ("low_ms", "high_ms"))
        in_run = line["measured_in_run_ms"] / line["budget_ms"] - 1
        after = line["of_start"]["ratio"] / line["budget"] - 1
        yield (
            f"budget {line['budget']} seed {line['seed']}: interval {below:+.1%} to {above:+.1%}; in the run {in_run:+.1%}"
            f"{verdict(in_run, below, above)} (start then {line['drift']:.3f} of what it took at first); measured with all, "
            f"as a share of the start {after:+.1%}{verdict(after, below, above)}"
        )


def verdict(off: float, below: float, above: float) -> str:
    return "" if below <= off <= above else " OUTSIDE"


def costs(lines: Sequence[Line]) -> Iterator[str]:
    """Proposals tried to the end, and CPU seconds of steps beside those of the same steps with nothing stopped."""
    steps = [line for line in lines if line.get("kind") == "step" and line["step"]]
    mine = [line for line in steps if line["cpu_s"] is not None]  # others were copied from another budget's run
    total, dominated, stopped = (sum(line[key] for line in mine) for key in ("proposals", "dominated", "stopped"))
    mean_s = statistics.mean(line["cpu_s"] for line in mine)
    yield (
        f"{len(mine)} steps, {total} proposals, {dominated} dominated, {stopped} stopped; {mean_s:.1f} CPU seconds a step"
    )
    for audit in (line for line in lines if line.get("kind") == "audit"):
        usual = [line["cpu_s"] for line in mine if (line["seed"], line["step"]) == (audit["seed"], audit["step"])]
        beside = f" instead of {usual[0]:.1f} s" if usual else ""
        yield (
            f"audit of seed {audit['seed']} step {audit['step']}: {audit['proposals']} proposals all tried in "
            f"{audit['cpu_s']:.1f} s{beside}; skipping cost {100 * audit['audit']:.2f} points"
        )


if __name__ == "__main__":
    main()

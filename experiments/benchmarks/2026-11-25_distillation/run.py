"""Trains a teacher, then a small network with it and without it, seed by seed, by `nas train`.

    python experiments/benchmarks/2026-11-25_distillation/run.py --data CIFAR10 --work FOLDER [--minutes M]

Resumable, and several processes may work in one FOLDER: what is finished is not repeated, what was begun goes on. Whoever finds
everything finished writes `result.jsonl`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from scipy.stats import ttest_rel

from experiments.record import write_record
from experiments.splits import write_splits

HERE = Path(__file__).parent
SEEDS = 3
LESSON = ["--distill-weight", "0.8", "--temperature", "3", "--replicas", "2"]
KEPT = ("accuracy", "loss", "validation_accuracy", "epochs", "images", "seconds", "images_per_second", "curve")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="after so long the training at hand is interrupted"
    )
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * given.minutes
    images = given.work / "images.npz"  # with one validation split for all seeds, so that the teacher is asked once
    with FileLock(given.work / "images.lock"):
        if not images.exists():
            write_splits(given.data, images)
    lesson = ["--teacher", str(given.work / "teacher-0" / "network.pt"), *LESSON]
    orders: dict[str, list[str]] = {"teacher-0": []}
    for seed in range(SEEDS):  # one with, one without: so that nothing but the teacher differs
        orders |= {f"plain-{seed}": [], f"taught-{seed}": lesson}
    while missing := [name for name in orders if not (given.work / name / "result.json").exists()]:
        if not any(train(given, name, orders[name], deadline) for name in missing):
            time.sleep(5)  # others are at what is left
        if time.monotonic() > deadline:
            return
    tell({name: json.loads((given.work / name / "result.json").read_bytes()) for name in orders})


def train(given: argparse.Namespace, name: str, more: list[str], deadline: float) -> bool:
    """Train one network unless somebody else does, or its teacher is missing; returns whether that was done."""
    kind, _, seed = name.partition("-")
    network = kind if kind == "teacher" else "student"
    if more and not Path(more[1]).exists():
        return False
    files = [str(HERE / f"{network}.json"), "--recipe", str(HERE / f"{network}.yaml"), "--out", str(given.work / name)]
    usual = ["--data", str(given.work / "images.npz"), "--seed", seed, "--threads", "1", "--json"]
    command = [sys.executable, "-m", "nas", "train", *files, *usual, *more]
    environment = {**os.environ, "XDG_CACHE_HOME": str(given.work / "cache")}
    try:
        with FileLock(given.work / f"{name}.lock", timeout=0):
            left_s = max(1.0, deadline - time.monotonic())
            subprocess.run(command, env=environment, timeout=left_s, check=True)
    except (Timeout, subprocess.TimeoutExpired):
        return False
    return True


def tell(results: dict[str, dict[str, Any]]) -> None:
    """Write the record."""
    lines: list[dict[str, Any]] = []
    for name, told in results.items():
        kind, _, seed = name.partition("-")
        lines.append({"what": kind, "seed": int(seed), **{key: told[key] for key in KEPT}})
    plain, taught = ([line["accuracy"] for line in lines if line["what"] == what] for what in ("plain", "taught"))
    gains = [100 * (one - other) for one, other in zip(taught, plain, strict=True)]
    summary = {
        "what": "gain",
        "lesson": " ".join(LESSON),
        "plain_mean": statistics.mean(plain),
        "taught_mean": statistics.mean(taught),
        "gain_points": [round(gain, 2) for gain in gains],
        "mean_points": round(statistics.mean(gains), 2),
        "sd_points": round(statistics.stdev(gains), 2),
        "p_two_sided": float(ttest_rel(taught, plain).pvalue),
    }
    write_record(HERE / "result.jsonl", [*lines, summary])
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()

"""One network, trained by `nas train` and by timm's implementation in a plain loop (`peer.py`), with one budget.

    python experiments/benchmarks/2026-11-25_public_implementation/run.py --data CIFAR10 --work FOLDER --peer PYTHON [--minutes M]

`--peer` is a Python that has torch, torchvision and timm. Both train on the same 45,000 images and are judged on the same 10,000.
Resumable; writes `result.jsonl` from all seeds that both have finished.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from experiments.record import write_record
from experiments.splits import write_splits

HERE = Path(__file__).parent
SEEDS = 3
KEPT = ("accuracy", "curve", "images", "seconds", "cpu_seconds", "params", "versions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="after so long the training at hand is interrupted"
    )
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    images = given.work / "cifar10.npz"
    given.work.mkdir(parents=True, exist_ok=True)
    if not images.exists():
        write_splits(given.data, images)
    network = ["mobilenet_v4_conv_s", "--width-multiplier", "0.5", "--recipe", str(HERE / "recipe.yaml")]
    ours = [sys.executable, "-m", "nas", "train", *network, "--data", str(images), "--threads", "1", "--json"]
    theirs = [given.peer, str(HERE / "peer.py"), "--images", str(images)]
    for seed in range(SEEDS):
        for name, command in (("ours", ours), ("peer", theirs)):
            folder = given.work / f"{name}-{seed}"
            if not (folder / "result.json").exists():
                left_s = max(1.0, deadline - time.monotonic())
                subprocess.run([*command, "--seed", str(seed), "--out", str(folder)], timeout=left_s, check=True)
    tell(given.work)


def tell(work: Path) -> None:
    """Write the record."""
    lines = []
    both: dict[str, list[float]] = {"ours": [], "peer": []}
    for seed in range(SEEDS):
        files = {name: work / f"{name}-{seed}" / "result.json" for name in both}
        if all(file.exists() for file in files.values()):
            for name, file in files.items():
                told = json.loads(file.read_bytes())
                both[name].append(told["accuracy"])
                lines.append({"who": name, "seed": seed, **{key: told[key] for key in KEPT if key in told}})
    summary = {name: {"mean": statistics.mean(values), "all": values} for name, values in both.items()}
    write_record(HERE / "result.jsonl", [*lines, {"who": "summary", **summary}])
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()

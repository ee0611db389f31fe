"""How small Deep Compression makes two networks, and what that costs in accuracy.

    python -m experiments.benchmarks.2026-11-25_compression.run CASE --data DATA --work FOLDER [--seed N]
    python -m experiments.benchmarks.2026-11-25_compression.run record --work FOLDER

A case trains its network by `nas train`, compresses it by `nas compress` and judges the file by `nas evaluate`, all on the
command line. For comparison the network is also trained on, uncompressed, for as long as the compression retrains it
(`control`). Every part resumes; what is finished is not repeated.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.record import write_record

HERE = Path(__file__).parent
FILES = {"FULL": "full", "LENET": str(HERE / "lenet5.yaml"), "RETRAIN": str(HERE / "lenet5_retraining.yaml")}


@dataclass(frozen=True)
class Case:
    """The options of a network's training, compression and further training."""

    train: tuple[str, ...]
    compress: tuple[str, ...]
    control: tuple[str, ...]


CASES = {
    "lenet5": Case(
        train=("--recipe", "LENET"),
        compress=("--recipe", "RETRAIN", "--density", "0.1", "--conv-bits", "4", "--rounds", "3", "--distill", "0.5"),
        control=("--recipe", "RETRAIN", "--epochs", "24"),
    ),
    "squeezenet_32px": Case(
        train=("--recipe", "FULL", "--epochs", "7"),
        compress=(
            *("--recipe", "compress", "--epochs", "2", "--density", "0.33", "--conv-bits", "5", "--rounds", "3"),
            *("--distill", "0.5"),
        ),
        control=("--recipe", "compress", "--epochs", "8"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*CASES, "record"])
    parser.add_argument("--data", help="folder with Fashion-MNIST's IDX files, or with CIFAR-10 as Parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", action="store_true", help="train on without compressing, instead")
    options = parser.parse_args()
    if options.part == "record":
        write_record(
            HERE / "result.jsonl", [json.loads(path.read_text()) for path in sorted(options.work.glob("*/row.json"))]
        )
        return
    run(
        options.part,
        options.data,
        options.work / f"{options.part}-{options.seed}",
        options.seed,
        control=options.control,
    )


def run(name: str, data: str, work: Path, seed: int, *, control: bool) -> None:
    case, common = CASES[name], ("--data", data, "--seed", str(seed))
    work.mkdir(parents=True, exist_ok=True)
    trained = nas("train", HERE / f"{name}.json", *common, *case.train, "--threads", "1", "--out", work / "train")
    if control:
        longer = nas(
            "train", trained["checkpoint"], *common, *case.control, "--threads", "1", "--out", work / "control"
        )
        add(work, {"accuracy_trained_on": longer["accuracy"]})
        return
    squeezed = nas("compress", trained["checkpoint"], *common, *case.compress, "--out", work / "compress")
    judged = nas("evaluate", squeezed["path"], "--data", data)
    assert judged["accuracy"] == squeezed["accuracy_after"]
    told = {key: value for key, value in squeezed.items() if key != "path"}
    add(work, {"network": name, "seed": seed, "train": case.train, "compress": case.compress, **told})


def add(work: Path, told: dict[str, Any]) -> None:
    """Add to what is recorded of a run."""
    path = work / "row.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, **told}))


def nas(*arguments: object) -> dict[str, Any]:
    """What a command says in JSON."""
    command = [sys.executable, "-m", "nas", *(FILES.get(str(one), str(one)) for one in arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()

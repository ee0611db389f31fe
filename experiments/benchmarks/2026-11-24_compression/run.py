"""How small Deep Compression makes two networks, and what that costs in accuracy.

    python -m experiments.benchmarks.2026-11-24_compression.run --fashion IDX_FOLDER --cifar10 PARQUET_FOLDER --work FOLDER

Trains each network once a seed by `nas train`, compresses it by `nas compress` and judges the file by `nas evaluate`, all on the
command line. Every part resumes; what is finished is not repeated.
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


@dataclass(frozen=True)
class Case:
    """A network, its data, and the options of its training and compression."""

    name: str
    data: str
    train: tuple[str, ...]
    compress: tuple[str, ...]


CASES = (
    Case("lenet5", "fashion", ("--epochs", "8"), ("--density", "0.07", "--conv-bits", "5", "--epochs", "3")),
    Case("squeezenet_32px", "cifar10", ("--epochs", "3"), ("--density", "0.3", "--conv-bits", "6", "--epochs", "1")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion", required=True, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--cifar10", required=True, help="folder with CIFAR-10 as Parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=[case.name for case in CASES])
    options = parser.parse_args()
    folders = {"fashion": options.fashion, "cifar10": options.cifar10}
    for seed in range(options.seeds):
        for case in CASES:
            if options.only in (None, case.name):
                run(case, folders[case.data], options.work / f"{case.name}-{seed}", seed)
    rows = [json.loads(path.read_text()) for path in sorted(options.work.glob("*/row.json"))]
    write_record(HERE / "result.jsonl", rows)


def run(case: Case, data: str, work: Path, seed: int) -> None:
    if (work / "row.json").exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    common = ("--data", data, "--seed", str(seed))
    trained = nas(
        "train", str(HERE / f"{case.name}.json"), *common, *case.train, "--threads", "1", "--out", work / "train"
    )
    squeezed = nas("compress", trained["checkpoint"], *common, *case.compress, "--out", work / "compress")
    judged = nas("evaluate", squeezed["path"], "--data", data)
    assert judged["accuracy"] == squeezed["accuracy_after"]
    row = {"network": case.name, "data": case.data, "seed": seed, "train": case.train, "compress": case.compress}
    (work / "row.json").write_text(json.dumps({**row, **{key: squeezed[key] for key in squeezed if key != "path"}}))


def nas(*arguments: object) -> dict[str, Any]:
    """What a command says in JSON."""
    command = [sys.executable, "-m", "nas", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


if __name__ == "__main__":
    main()

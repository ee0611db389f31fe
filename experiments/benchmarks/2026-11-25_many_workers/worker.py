"""A worker of this record: the product's search, in which training is a sleep.

python worker.py URL FOLDER --trials N [--seconds 1.0] [--sampler random] [--disk FOLDER]
"""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

from latency.model import LatencyModel
from nas import database
from nas.pruning import NoDearerPruner
from nas.sampling.history import CANDIDATE
from nas.storage import open_study
from nas.study import Problem, RungScore, attach_sampler, run_trials
from searchspace.architecture import Architecture
from searchspace.errors import NasError
from searchspace.files import write_atomically
from searchspace.space import Space, load_space

TABLE = Path(__file__).parent.parent / "2026-11-24_sampler_benchmark"
BUDGET_MS = 0.062
RUNGS = 2
STUDY = "simulated"
CHECKPOINT_BYTES = 20_000


class Fixed(Problem):
    """Nobody is stopped early: every trial takes as long."""

    @property
    def pruner(self) -> Any:
        return NoDearerPruner((CANDIDATE, "predicted_ms"), peers=1 << 30, complete=1 << 30)


def space() -> Space:
    return load_space(str(TABLE / "space.yaml")).adapt(channels=3, classes=10)


def model() -> LatencyModel:
    return LatencyModel.load(TABLE / "latency_model.json")


def identity() -> dict[str, Any]:
    return {"space": space().fingerprint, "data": ["none: training is a sleep"]}


@dataclasses.dataclass
class Sleeping:
    """Stands for training: sleeps, writes a checkpoint and a line of what it did when."""

    log: Path
    disk: Path
    seconds: float

    def __call__(self, architecture: Architecture, rung: int) -> RungScore:
        began = time.time()
        checkpoint = self.disk / f"{architecture.fingerprint}.rung{rung}.json"
        if not checkpoint.exists():
            time.sleep(self.seconds / RUNGS)
            write_atomically(checkpoint, json.dumps({"weights": "0" * CHECKPOINT_BYTES}).encode())
        with self.log.open("a") as file:
            file.write(json.dumps([architecture.fingerprint, rung, began, time.time()]) + "\n")
        return RungScore(int(architecture.fingerprint, 16) % 1000 / 1000, 1.0, self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--disk", type=Path)
    parser.add_argument("--grace", type=float, nargs=2, default=(database.HEARTBEAT_S, database.GRACE_S))
    asked = parser.parse_args()
    database.HEARTBEAT_S, database.GRACE_S = asked.grace
    trainer = Sleeping(asked.folder / f"{os.getpid()}.jsonl", asked.disk or asked.folder / "checkpoints", asked.seconds)
    problem = Fixed(space(), model().predict, BUDGET_MS, trainer, RUNGS)
    study = open_study(asked.url, STUDY, identity=identity())
    attach_sampler(study, problem, asked.sampler, seed=os.getpid())
    (asked.folder / f"{os.getpid()}.ready").touch()
    while not (asked.folder / "go").exists():  # all begin together
        time.sleep(0.01)
    try:
        run_trials(study, problem, trials=asked.trials)
    except NasError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()

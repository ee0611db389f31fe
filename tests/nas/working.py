"""A worker process of tests: candidates whose training is a sleep, on the study of a server."""

import json
import os
import sys
import time
from pathlib import Path

from nas import database
from nas.storage import open_study
from nas.study import RungScore, attach_sampler, run_trials
from searchspace.architecture import Architecture
from tests.nas.test_study import IDENTITY, Trainer, problem


class Sleeping(Trainer):
    """Takes a while, and notes what it was asked in a file of its process."""

    folder: Path

    def __call__(self, architecture: Architecture, rung: int) -> RungScore:
        time.sleep(0.3)
        with (self.folder / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps([architecture.fingerprint, rung]) + "\n")
        return super().__call__(architecture, rung)


if __name__ == "__main__":
    url, folder, trials, seed = sys.argv[1:]
    database.HEARTBEAT_S, database.GRACE_S = 1, 4
    trainer = Sleeping(lucky=True)
    trainer.folder = Path(folder)
    study = open_study(url, "search", identity=IDENTITY)
    attach_sampler(study, problem(trainer), seed=int(seed))
    run_trials(study, problem(trainer), trials=int(trials))

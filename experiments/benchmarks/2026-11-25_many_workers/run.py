"""Many workers on one study on PostgreSQL, with training replaced by a sleep; see README.md.

    PYTHONPATH=. python experiments/benchmarks/2026-11-25_many_workers/run.py throughput | chaos | load  [--work FOLDER]

Each writes `NAME.jsonl` beside this file.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.event
from worker import BUDGET_MS, STUDY, Fixed, Sleeping, identity, model, space

from experiments.record import write_record
from nas.sampling.history import CANDIDATE, OUTCOME
from nas.storage import open_study
from nas.study import COMPLETE, attach_sampler, count_outcomes, run_trials
from tests.nas.postgres import Postgres, open_postgres

HERE = Path(__file__).parent
CASES = ((1, "random"), (2, "random"), (4, "random"), (8, "random"), (2, "auto"))  # workers, sampler
SAFE = "-c fsync=on"  # as an operator would run it


def start(url: str, folder: Path, *options: object) -> subprocess.Popen[str]:
    """A worker process."""
    command = [sys.executable, str(HERE / "worker.py"), url, str(folder), *map(str, options)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def spans(folder: Path) -> dict[str, list[list[Any]]]:
    """By process: fingerprint, rung, begin and end of each rung."""
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in folder.glob("[0-9]*.jsonl")
    }


def coordination(lines: list[list[Any]]) -> list[float]:
    """Seconds between a trial's end and the next one's beginning, and between rungs, added up for each trial but the first."""
    gaps: dict[int, float] = Counter()
    trial = -1
    for index, line in enumerate(lines):
        trial += line[1] == 0
        if index:
            gaps[trial] += line[2] - lines[index - 1][3]
    return [gap for trial, gap in gaps.items() if trial > 0]


def ended(url: str) -> dict[str, Any]:
    """What the study holds in the end."""
    study = open_study(url, STUDY, identity=identity())
    trials = study.get_trials(deepcopy=False)
    trained = [one.user_attrs[CANDIDATE]["fingerprint"] for one in trials if one.user_attrs.get(OUTCOME) == COMPLETE]
    return {
        "outcomes": dict(count_outcomes(study)),
        "trained": len(trained),
        "distinct": len(set(trained)),
        "running": sum(one.state.name == "RUNNING" for one in trials),
        "fingerprints": trained,
    }


def throughput(server: Postgres, work: Path) -> Iterator[dict[str, Any]]:
    """1, 2, 4 and 8 workers, ten trials of a second each; the last also with the default sampler."""
    for workers, sampler in CASES:
        folder = work / f"{sampler}{workers}"
        (folder / "checkpoints").mkdir(parents=True)
        url, trials = database(server, f"{sampler}{workers}"), 10 * workers
        processes = [start(url, folder, "--trials", trials, "--sampler", sampler) for _ in range(workers)]
        while len(list(folder.glob("*.ready"))) < workers:
            time.sleep(0.1)
        (folder / "go").touch()
        for process in processes:
            process.wait()
        done = spans(folder)
        begun = min(lines[0][2] for lines in done.values())
        over = max(line[3] for lines in done.values() for line in lines)
        gaps = [1000 * gap for lines in done.values() for gap in coordination(lines)]
        trained = Counter(line[0] for lines in done.values() for line in lines if line[1] == 0)
        found = ended(url)
        yield {
            "workers": workers,
            "sampler": sampler,
            "trials": trials,
            "trained": found["trained"],
            "distinct": found["distinct"],
            "trained_twice": sum(count > 1 for count in trained.values()),
            "trials_per_second": round(trials / (over - begun), 3),
            "coordination_ms": {
                "median": round(statistics.median(gaps), 1),
                "mean": round(statistics.mean(gaps), 1),
                "p95": round(statistics.quantiles(gaps, n=20)[-1], 1),
            },
        }


def chaos(server: Postgres, work: Path) -> Iterator[dict[str, Any]]:
    """Four workers; one killed every three seconds and replaced; the server restarted twice; one worker's disk is full."""
    (work / "checkpoints").mkdir(parents=True)
    (work / "go").touch()
    url, wanted = database(server, "chaos"), 60
    options = ("--trials", wanted, "--seconds", 1.0, "--grace", 1, 5)
    full = Path(tempfile.mkdtemp(prefix="nas-full-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], check=True)
    source, killed, restarts, told = random.Random(0), 0, 0, ""
    processes = [start(url, work, *options) for _ in range(4)]
    unlucky = start(url, work, *options, "--disk", full)
    began = time.monotonic()
    while any(process.poll() is None for process in processes):
        time.sleep(3)
        seconds = time.monotonic() - began
        if restarts < 2 and seconds > 15 * (restarts + 1):
            server.stop()
            time.sleep(3)
            server.start()
            restarts += 1
        alive = [process for process in processes if process.poll() is None]
        if alive and killed < 12 and seconds > 8:
            victim = source.choice(alive)
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            killed += 1
            processes.append(start(url, work, *options))
    told = unlucky.communicate()[1].strip()
    subprocess.run(["umount", str(full)], check=True)
    full.rmdir()
    found = ended(url)
    checkpoints = [json.loads(path.read_text()) for path in (work / "checkpoints").glob("*.json")]
    begun = Counter(line[0] for lines in spans(work).values() for line in lines if line[1] == 0)
    yield {
        "wanted": wanted,
        **{key: value for key, value in found.items() if key != "fingerprints"},
        "killed": killed,
        "server_restarts": restarts,
        "full_disk": {"exit": unlucky.returncode, "told": told.replace(str(full), "FULL")},
        "checkpoints": len(checkpoints),
        "left_over_files": len(list((work / "checkpoints").glob(".*.tmp"))),
        "first_rung_reached_again": sum(count > 1 for count in begun.values()),
        "seconds": round(time.monotonic() - began, 1),
        "errors_of_workers": sorted(
            {one.stderr.read().strip()[-200:] for one in processes if one.returncode not in (0, -9) and one.stderr}
        ),
    }


def load(server: Postgres, work: Path) -> Iterator[dict[str, Any]]:
    """What a trial asks of the database, and what reading a study costs by its running and its finished trials."""
    url = database(server, "load")
    study = open_study(url, STUDY, identity=identity())
    queries = Counter[str]()
    engine = study._storage._backend.engine  # type: ignore[attr-defined]
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *told: queries.update([told[2].split()[0]]))
    trainer = Sleeping(work / "0.jsonl", work, 0.0)
    problem = Fixed(space(), model().predict, BUDGET_MS, trainer, 2)
    attach_sampler(study, problem, "random", seed=0)
    work.mkdir(parents=True, exist_ok=True)
    run_trials(study, problem, trials=2)
    queries.clear()
    run_trials(study, problem, trials=12)
    yield {"queries_per_trial": {kind: count / 10 for kind, count in sorted(queries.items())}}
    for running in (0, 50, 200):
        while sum(one.state.name == "RUNNING" for one in study.get_trials(deepcopy=False)) < running:
            trial = study.ask()
            architecture = problem.space.sample(trial)
            trial.set_user_attr(
                CANDIDATE,
                {
                    "fingerprint": architecture.fingerprint,
                    "predicted_ms": 0.1,
                    "low_ms": 0.1,
                    "high_ms": 0.1,
                    "architecture": architecture.to_dict(),
                },
            )
        times = []
        for _ in range(7):
            before = time.perf_counter()
            study.get_trials(deepcopy=False)
            times.append(time.perf_counter() - before)
        yield {"running": running, "read_ms": round(1000 * statistics.median(times), 2)}
    template = next(one for one in study.get_trials() if one.user_attrs.get(OUTCOME) == COMPLETE)
    for finished in (250, 1000):
        have = sum(one.state.is_finished() for one in study.get_trials(deepcopy=False))
        study.add_trials([template] * (finished - have))
        before = time.perf_counter()
        open_study(url, STUDY, identity=identity()).get_trials(deepcopy=False)
        yield {"finished": finished, "join_seconds": round(time.perf_counter() - before, 3)}


def database(server: Postgres, name: str) -> str:
    """The URL of a new database."""
    engine = sqlalchemy.create_engine(
        server.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.url.removesuffix("postgres") + name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("throughput", "chaos", "load"))
    parser.add_argument("--work", type=Path, default=Path("runs/many_workers"))
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    work = asked.work.absolute() / asked.what
    shutil.rmtree(work, ignore_errors=True)
    server = open_postgres(SAFE)
    try:
        part = {"throughput": throughput, "chaos": chaos, "load": load}[asked.what]
        results = []
        for line in part(server, work):
            print(json.dumps(line), flush=True)
            results.append(line)
        write_record(HERE / f"{asked.what}.jsonl", results)
    finally:
        server.stop()


if __name__ == "__main__":
    main()

"""Many workers on one study on PostgreSQL, with training replaced by a sleep; see README.md.

    PYTHONPATH=. python experiments/benchmarks/2026-11-25_many_workers/run.py WHAT [--work FOLDER]

WHAT is throughput, chaos, load, scale or real; each writes `WHAT.jsonl` beside this file.
"""

import argparse
import heapq
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
from worker import BUDGET_MS, RUNGS, STUDY, Fixed, Sleeping, identity, model, space

from experiments.record import write_record
from nas.claims import WORKER
from nas.outcomes import COMPLETE, PRUNED, count_outcomes
from nas.sampling.history import CANDIDATE, OUTCOME
from nas.storage import open_study
from nas.study import attach_sampler, run_trials
from tests.nas.postgres import Postgres, open_postgres

HERE = Path(__file__).parent
CASES = ((1, "random"), (2, "random"), (4, "random"), (8, "random"), (2, "auto"))  # workers, sampler
READS = 3  # of the whole study by a trial of two rungs
TRIALS = 100_000
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


class Spent:
    """CPU milliseconds of this process and of the database's processes: other load on the machine does not count."""

    def __init__(self, server: Postgres) -> None:
        self.folder = server.folder
        self.before = self._now()

    def each(self, count: int) -> dict[str, float]:
        """Since the beginning, divided by so many."""
        return {name: round((now - self.before[name]) / count, 2) for name, now in self._now().items()}

    def _now(self) -> dict[str, float]:
        main = int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == main or path.parent.name == str(main):
                ticks += int(fields[11]) + int(fields[12])
        return {"client_ms": 1000 * time.process_time(), "server_ms": 1000 * ticks / os.sysconf("SC_CLK_TCK")}


def load(server: Postgres, work: Path) -> Iterator[dict[str, Any]]:
    """What a trial asks of the database, and what reading a study costs by its running and its finished trials."""
    url = database(server, "load")
    study = open_study(url, STUDY, identity=identity())
    queries = Counter[str]()
    engine = study._storage._backend.engine  # type: ignore[attr-defined]
    sqlalchemy.event.listen(engine, "before_cursor_execute", lambda *told: queries.update([told[2].split()[0]]))
    work.mkdir(parents=True, exist_ok=True)
    problem = Fixed(space(), model().predict, BUDGET_MS, Sleeping(work / "0.jsonl", work, 0.0), RUNGS)
    for sampler, trials in (("random", 15), ("auto", 30)):
        attach_sampler(study, problem, sampler, seed=0)
        run_trials(study, problem, trials=trials - 10)
        queries.clear()
        spent = Spent(server)
        run_trials(study, problem, trials=trials)
        yield {
            "sampler": sampler,
            **spent.each(10),
            "queries": {kind: count / 10 for kind, count in sorted(queries.items())},
        }
    for running in (0, 50, 100):
        while sum(one.state.name == "RUNNING" for one in study.get_trials(deepcopy=False)) < running:
            trial = study.ask()
            architecture = problem.space.sample(trial)
            known = {"fingerprint": architecture.fingerprint, "architecture": architecture.to_dict()}
            trial.set_user_attr(CANDIDATE, known | {"predicted_ms": 0.1, "low_ms": 0.1, "high_ms": 0.1})
        study.get_trials(deepcopy=False)
        spent = Spent(server)
        for _ in range(20):
            study.get_trials(deepcopy=False)
        yield {"read_beside_running": running, **spent.each(20)}
    template = next(one for one in study.get_trials() if one.user_attrs.get(OUTCOME) == COMPLETE)
    have = sum(one.state.is_finished() for one in study.get_trials(deepcopy=False))
    study.add_trials([template] * (500 - have))
    spent = Spent(server)
    open_study(url, STUDY, identity=identity()).get_trials(deepcopy=False)
    yield {"joining_a_study_of": 500, **spent.each(1)}


def scale(server: Postgres, work: Path) -> Iterator[dict[str, Any]]:
    """By a fake clock, with the costs of `load.jsonl`: how many workers a database of so many cores bears."""
    costs = [json.loads(line) for line in (HERE / "load.jsonl").read_text().splitlines()]
    trial = next(one for one in costs if one.get("sampler") == "random")
    reads = {one["read_beside_running"]: one for one in costs if "read_beside_running" in one}
    joining = next(one for one in costs if "joining_a_study_of" in one)
    most = max(reads)
    for seconds in (60, 600):
        for cores in (4, 16):
            for workers in (10, 30, 100, 300, 1000):
                more = {
                    name: (reads[most][name] - reads[0][name]) / most * workers * READS / 1000
                    for name in ("client_ms", "server_ms")
                }
                server_s = trial["server_ms"] / 1000 + more["server_ms"]
                client_s = trial["client_ms"] / 1000 + more["client_ms"]
                took = _clock(workers, cores, seconds, server_s, client_s)
                yield {
                    "workers": workers,
                    "server_cores": cores,
                    "training_s": seconds,
                    "trials": TRIALS,
                    "coordination_s": round(server_s + client_s, 3),
                    "efficiency": round(TRIALS * seconds / workers / took, 3),
                    "server_busy": round(TRIALS * server_s / took / cores, 3),
                }
    yield {
        "joining_a_study_of": TRIALS,
        "client_s": round(joining["client_ms"] / joining["joining_a_study_of"] * TRIALS / 1000, 1),
        "server_s": round(joining["server_ms"] / joining["joining_a_study_of"] * TRIALS / 1000, 1),
    }


def _clock(workers: int, cores: int, training_s: float, server_s: float, client_s: float) -> float:
    """Seconds until TRIALS trials are done; each needs one of the server's cores for a while, first come, first served."""
    source = random.Random(0)
    free = [0.0] * cores
    ready = [source.uniform(0, training_s) for _ in range(workers)]
    heapq.heapify(ready)
    end = 0.0
    for _ in range(TRIALS):
        now = heapq.heappop(ready)
        served = max(now, heapq.heappop(free)) + server_s
        heapq.heappush(free, served)
        end = max(end, served)
        heapq.heappush(ready, served + client_s + training_s * source.uniform(0.8, 1.2))
    return end


def real(server: Postgres, work: Path) -> Iterator[dict[str, Any]]:
    """`nas search` on digits with one worker of its own, and one `nas worker` that joins it; nothing is pretended."""
    work.mkdir(parents=True)
    url, out = database(server, "real"), work / "run"
    budget = ["--trials", "24", "--rungs", "1000,3000", "--finalists", "2", "--epochs", "2"]
    nas = [sys.executable, "-m", "nas"]
    search = [*nas, "search", "--data", "digits", *budget, "--workers", "1", "--out", str(out), "--storage", url]
    began = time.monotonic()
    searching = subprocess.Popen([*search, "--json"], stdout=subprocess.PIPE, text=True)
    while not any(out.rglob("*.pt")) and searching.poll() is None:  # until the first candidate has been trained
        time.sleep(0.2)
    joined = subprocess.run(
        [*nas, "worker", "--storage", url, "--data", "digits", "--json"], stdout=subprocess.PIPE, check=False
    )
    found = json.loads(searching.communicate()[0])
    trials = optuna.load_study(study_name="search", storage=url.replace("postgresql:", "postgresql+psycopg:")).trials
    candidates = [one for one in trials if one.user_attrs.get(OUTCOME) in (COMPLETE, PRUNED)]
    trained = [one.user_attrs[CANDIDATE]["fingerprint"] for one in candidates]
    yield {
        "command": " ".join(["nas", "search", "--data", "digits", *budget, "--workers", "1", "--storage", "URL"]),
        "exit_codes": [searching.returncode, joined.returncode],
        "seconds": round(time.monotonic() - began, 1),
        "trained": len(trained),
        "distinct": len(set(trained)),
        "by_worker": sorted(Counter(one.user_attrs[WORKER] for one in candidates).values()),
        "outcomes": found["trials"],
        "running": sum(one.state.name == "RUNNING" for one in trials),
        "front": [[one["accuracy"], one["measured_ms"]] for one in found["front"]],
    }


def database(server: Postgres, name: str) -> str:
    """The URL of a new database."""
    engine = sqlalchemy.create_engine(
        server.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return server.url.removesuffix("postgres") + name


PARTS = {"throughput": throughput, "chaos": chaos, "load": load, "scale": scale, "real": real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tuple(PARTS))
    parser.add_argument("--work", type=Path, default=Path("runs/many_workers"))
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    work = asked.work.absolute() / asked.what
    shutil.rmtree(work, ignore_errors=True)
    server = open_postgres(SAFE)
    try:
        results = []
        for line in PARTS[asked.what](server, work):
            print(json.dumps(line), flush=True)
            results.append(line)
        write_record(HERE / f"{asked.what}.jsonl", results)
    finally:
        server.stop()


if __name__ == "__main__":
    main()

"""Compares samplers by simulation over the table's surrogate; see README.md.

    python experiments/benchmarks/2026-11-24_sampler_benchmark/run.py [--part 0/2] [--seeds 5]

Every finished simulation is a line in `--work`; those that are there are not repeated. `summary.py` makes the record of them.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from make_table import HERE, RUNGS
from surrogate import TableSurrogate, Trainer, read_table

from nas.outcomes import COMPLETE
from nas.pruning import NoDearerPruner
from nas.sampling.acquisition import staircase
from nas.sampling.decisions import Decisions
from nas.sampling.history import CANDIDATE, OUTCOME
from nas.stages import TwoStages
from nas.study import STARTUP_TRIALS, Problem, attach_sampler, prepare, run_trials
from nas.survey import Survey, survey

BUDGET_MS = 0.062  # the median of the space
TRIALS = 90
FLOOR = 0.3  # accuracy from which hypervolume counts
FINALISTS = 5
SHARE, MORE = (
    0.6,
    3,
)  # a search that stops candidates early may train up to so many times as many, for that share of the images
ASKS = 30  # of an Optuna sampler for each candidate that is within the budget
DEFAULTS = {
    "optuna random": optuna.samplers.RandomSampler,
    "optuna tpe": optuna.samplers.TPESampler,
    "optuna nsga2": optuna.samplers.NSGAIISampler,
    "optuna nsga3": optuna.samplers.NSGAIIISampler,
    "optuna qmc": optuna.samplers.QMCSampler,
    "optuna gp": optuna.samplers.GPSampler,
}
OURS = ("auto", "tpe", "nsga2", "gp")
LATENCY = (CANDIDATE, "predicted_ms")
NEVER = 1 << 30  # others that must have come as far before anybody is stopped
PRUNERS: dict[str, Any] = {
    "none": NoDearerPruner(LATENCY, peers=NEVER, complete=NEVER),
    "default": NoDearerPruner(LATENCY),
    "median": NoDearerPruner(LATENCY, share=0.5, luck=math.inf),  # of those no slower, on the same rung
}


@dataclasses.dataclass(frozen=True)
class Stopped(Problem):
    """A problem with a pruner of its own."""

    stopping: Any = None

    @property
    def pruner(self) -> Any:
        return self.stopping


@dataclasses.dataclass(frozen=True)
class Task:
    """One simulation."""

    method: str
    pareto: bool
    seed: int
    pruner: str = "none"
    stages: bool = False

    @property
    def key(self) -> str:
        return f"{self.method}|{'front' if self.pareto else 'best'}|{self.pruner}|{'two' if self.stages else 'one'}|{self.seed}"


def tasks(seeds: int) -> Iterator[Task]:
    """What is simulated, what matters most first."""
    for seed in range(seeds):
        for pareto in (True, False):
            for method in ("optuna random", "optuna tpe", "optuna nsga2", "optuna nsga3", "optuna qmc"):
                yield Task(method, pareto, seed)
            for pruner in ("none", "default"):
                yield Task("auto", pareto, seed, pruner=pruner)
        yield Task("auto", True, seed, pruner="median")
        for pareto in (True, False):
            yield Task("auto", pareto, seed, stages=True)
    for seed in range(seeds):
        for pareto in (True, False):
            for method in ("optuna gp", "tpe", "nsga2"):
                yield Task(method, pareto, seed)


def simulate(task: Task, surrogate: TableSurrogate, surveyed: Survey) -> dict[str, Any]:
    """One search; what it knew after every candidate."""
    directions = ["maximize", "minimize"] if task.pareto else ["maximize"]
    sampler = DEFAULTS[task.method](seed=task.seed) if task.method in DEFAULTS else None
    study = optuna.create_study(directions=directions, sampler=sampler)
    trainer = Trainer(surrogate, task.seed, lambda: study.get_trials(deepcopy=False)[-1].params)
    problem = Stopped(
        surrogate.space,
        surrogate.model.predict,
        BUDGET_MS,
        trainer,
        len(RUNGS),
        pareto=task.pareto,
        stopping=PRUNERS[task.pruner],
    )
    trail: list[tuple[int, str, float]] = []
    images = TRIALS * sum(RUNGS)
    if sampler is not None:
        _by_defaults(study, problem, trainer, trail)
    else:
        stages = TwoStages(Decisions.of(surrogate.space), TRIALS) if task.stages else None
        attach_sampler(study, problem, task.method, seed=task.seed, pins=stages.pins if stages else None)
        first = surveyed.spread(BUDGET_MS, STARTUP_TRIALS)
        if stages:
            first = stages.first(surrogate.model.predict_ms, limit_ms=BUDGET_MS, count=STARTUP_TRIALS, seed=task.seed)
        prepare(study, first, local=True)
        most = TRIALS if task.pruner == "none" else TRIALS * MORE
        for wanted in range(1, most + 1):
            if wanted > TRIALS and trainer.images >= SHARE * TRIALS * sum(RUNGS):
                break
            run_trials(study, problem, trials=wanted)
            if wanted == TRIALS:
                images = trainer.images
            last = [trial for trial in study.get_trials(deepcopy=False) if CANDIDATE in trial.user_attrs][-1]
            if last.user_attrs[OUTCOME] == COMPLETE:
                candidate = last.user_attrs[CANDIDATE]
                trail.append((trainer.images, candidate["fingerprint"], candidate["predicted_ms"]))
    return {
        "key": task.key,
        **dataclasses.asdict(task),
        "images_of_trials": images,
        "trail": _scored(trail, trainer),
        "networks": [
            [fingerprint, ms, *trainer.observed[fingerprint].round(5).tolist()] for _, fingerprint, ms in trail
        ],
    }


def _by_defaults(study: optuna.Study, problem: Problem, trainer: Trainer, trail: list[tuple[int, str, float]]) -> None:
    """Optuna as its documentation has it: suggest, constrain, train, tell. What is over the budget costs nothing."""
    learns_from_pruned = isinstance(study.sampler, optuna.samplers.TPESampler)
    trained = 0
    for _ in range(ASKS * TRIALS):
        trial = study.ask()
        architecture = problem.space.sample(trial)
        judged = problem.judge(architecture)
        trial.set_constraint("latency", judged.excess)
        if judged.excess > 0:
            if learns_from_pruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:  # the others learn from completed trials only
                study.tell(trial, [0.0, judged.ms] if problem.pareto else 0.0)
            continue
        for rung in range(len(RUNGS)):
            score = problem.train(architecture, rung)
        study.tell(trial, problem.values(score.score, judged.ms))
        trail.append((trainer.images, architecture.fingerprint, judged.ms))
        trained += 1
        if trained == TRIALS:
            return


def _scored(trail: list[tuple[int, str, float]], trainer: Trainer) -> list[list[float]]:
    """After each completed candidate: images so far, hypervolume of the front it shows, accuracy of the best finalist.

    The front and the FINALISTS are chosen by what was observed. They are valued twice: by the surrogate's means, as if every
    deviation from them were luck; and by what was observed, as if none were. The truth lies between.
    """
    told = []
    last = {fingerprint: float(scores[-1]) for fingerprint, scores in trainer.observed.items()}
    mean = {fingerprint: float(scores[-1]) for fingerprint, scores in trainer.means.items()}
    for end in range(1, len(trail) + 1):
        seen = {fingerprint: ms for _, fingerprint, ms in trail[:end]}
        front = {
            fingerprint: ms
            for fingerprint, ms in seen.items()
            if not any(other_ms <= ms and last[other] > last[fingerprint] for other, other_ms in seen.items())
        }
        finalists = sorted(seen, key=lambda fingerprint: -last[fingerprint])[:FINALISTS]
        values = [float(trail[end - 1][0])]
        for value in (mean, last):
            values.append(round(_volume([(ms, value[fingerprint]) for fingerprint, ms in front.items()]), 6))
            values.append(round(max(value[fingerprint] for fingerprint in finalists), 5))
        told.append(values)
    return told


def _volume(points: list[tuple[float, float]]) -> float:
    """Hypervolume up to the budget, relative to it, above the accuracy FLOOR."""
    steps = staircase([point for point in points if point[0] <= BUDGET_MS * 1.05], floor=FLOOR)
    ends = [step.price for step in steps[1:]] + [BUDGET_MS]
    return sum(
        max(end - step.price, 0) / BUDGET_MS * (step.accuracy - FLOOR) for step, end in zip(steps, ends, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="methods, separated by commas")
    parser.add_argument("--work", type=Path, default=Path("runs/sampler_benchmark"))
    parser.add_argument("--table", type=Path, default=HERE / "table.jsonl")
    asked = parser.parse_args()
    part, parts = map(int, asked.part.split("/"))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    asked.work.mkdir(parents=True, exist_ok=True)
    surrogate = TableSurrogate(tuple(read_table(asked.table)))
    surveyed = survey(surrogate.space, surrogate.model.predict_ms)
    print(
        "networks",
        len(surrogate.rows),
        "held-out tau",
        surrogate.taus(),
        "deviation",
        surrogate.deviation.tolist(),
        flush=True,
    )
    path = asked.work / f"simulated.{part}of{parts}.jsonl"
    done = {json.loads(line)["key"] for line in path.read_text().splitlines()} if path.exists() else set()
    wanted = [task for task in tasks(asked.seeds) if not asked.only or task.method in asked.only.split(",")]
    for index, task in enumerate(wanted):
        if index % parts == part and task.key not in done:
            line = simulate(task, surrogate, surveyed)
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(task.key, line["trail"][-1], np.round(line["images_of_trials"] / 1000), flush=True)


if __name__ == "__main__":
    main()

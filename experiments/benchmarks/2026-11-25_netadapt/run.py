"""NetAdapt against one width multiplier and against Torch-Pruning: accuracy at the same measured latency on this machine.

All start from one checkpoint and all see equally many images: a rival's fine-tune is longer by all images that NetAdapt spent on
short ones up to its result, those of proposals that came to nothing included. Of each rival two networks are fine-tuned, the
nearest sizes below and above NetAdapt's latency by the latency model, so that its accuracy at NetAdapt's measured latency can be
read off between them. In the end everything is measured side by side, in turns.

    cd experiments/benchmarks/2026-11-25_netadapt
    python run.py start   WORK --data DATA           # trains start.json
    python run.py profile WORK                       # the latency model: some quiet minutes
    python run.py shapes  WORK --data DATA           # the rivals' networks of all sizes
    python run.py adapt   WORK --data DATA --seed 0  # and 1, 2: side by side
    python run.py tune    WORK --data DATA --seed 0  # long fine-tunes of all
    python run.py longer  WORK --data DATA --seed 0  # five times as long ones of NetAdapt's and uniform scaling's networks
    python run.py measure WORK                       # all networks, after all adapt: some quiet minutes
    python run.py audit   WORK --data DATA --seed 0  # tries what was skipped, too
    python run.py record  WORK --data DATA

Each part goes on where it was interrupted.
"""

import argparse
import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.record import write_record
from latency.comparison import compare
from latency.model import LatencyModel
from latency.profiling import profile_target
from latency.settings import Effort
from latency.target import load_target
from nas.adaptation import netadapt, trimming
from nas.calibration import Calibrated
from nas.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nas.data import Batches, Data, load_data
from nas.deployment import onnx_model
from nas.evaluation import as_trained, evaluate
from nas.family import Family
from nas.neighbours import neighbours
from nas.proposals import DIVISOR, GRID, multiplied
from nas.recipe import Recipe, load_recipe
from nas.reductions import reductions
from nas.run import open_run
from nas.slicing import Slicer
from nas.steps import Settings, Step
from nas.training import train
from searchspace.architecture import Architecture, lower
from searchspace.width import set_widths, widths

HERE = Path(__file__).parent
BUDGETS = (0.5, 0.35, 0.75)  # of the start's latency; the first one's steps are shared by the others
SEEDS = (0, 1, 2)
EPOCHS = 2  # of the start
HOLD_OUT = 1_500  # images that proposals are compared on, of the 5,000 that are held out
SHORT = 64  # images of a short fine-tune
LONG = 8_000  # images of NetAdapt's long one
LONGER = 40_000  # images of another, after the same steps: whether what is won lasts; by NetAdapt and `uniform` only
REDUCTION = "0.075"  # of the start's latency, in the first step: about eleven steps to 0.35
MARGIN = 0.01  # of the latency, by which a rival's sizes are smaller and larger at least: the model errs
EFFORT = Effort(processes=4, slices=12, limit_s=4.0)
TARGET = load_target("host")


class Work:
    """The folder of the experiment, and what its parts share."""

    def __init__(self, folder: Path, source: str, budgets: Sequence[float]) -> None:
        self.folder, self.source, self.budgets = folder, source, budgets
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def start(self) -> Checkpoint:
        return load_checkpoint(self.folder / "start" / "network.pt")

    @property
    def model(self) -> LatencyModel:
        return LatencyModel.load(self.folder / "latency_model.json")

    def data(self) -> Data:
        """CIFAR-10, part of its hold-out split left aside to save time."""
        data = as_trained(load_data(self.source, resolution=32, channels=3), self.start)
        return dataclasses.replace(data, validation=data.validation.take(slice(HOLD_OUT)))

    def seed(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}"

    def steps(self, seed: int, budget: float) -> list[Step]:
        """What NetAdapt did for a budget."""
        files = sorted((self.seed(seed) / f"netadapt-{budget}").glob("step-*.json"))
        return [Step(**json.loads(file.read_text())) for file in files]

    def trimmed(self, seed: int, budget: float) -> Path:
        """NetAdapt's network for a budget, before its long fine-tune."""
        return self.seed(seed) / f"netadapt-{budget}" / self.steps(seed, budget)[-1].checkpoint


def start(work: Work, seed: int) -> None:
    """Train the network that everything starts from."""
    options = ["--data", work.source, "--epochs", str(EPOCHS), "--threads", "1", "--out", str(work.folder / "start")]
    subprocess.run([sys.executable, "-m", "nas", "train", str(HERE / "start.json"), *options], check=True)


def profile(work: Work, seed: int) -> None:
    """Fit the latency model to networks trimmed from the start at random."""
    architecture = Architecture.from_dict(json.loads((HERE / "start.json").read_text()))
    model = profile_target(TARGET, neighbours(architecture), networks=72, limit_s=240)
    model.save(work.folder / "latency_model.json")


# NetAdapt


BEGIN = "the steps begin"


class Log:
    """Keeps what a run tells, with the CPU seconds it took until then."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, message: str) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"cpu_s": time.process_time(), "note": message}) + "\n")

    def progress(self, what: str, done: int, total: int | None) -> None:
        pass


def adapt(work: Work, seed: int) -> None:
    """Trim to each budget; as the goals of steps do not depend on it, what the first run did is not done again."""
    data = work.data()
    for budget in work.budgets:
        trimmed = family(work, data, seed, f"netadapt-{budget}", budget_ratio=budget)
        if budget != BUDGETS[0]:
            share_steps(work, seed, budget, trimmed.run.path)
        netadapt(trimmed)


def family(work: Work, data: Data, seed: int, name: str, *, audit_every: int = 0, **limit: float) -> Family:
    """A family with a folder of its own."""
    settings = Settings(
        **limit,  # type: ignore[arg-type]
        reduction=REDUCTION,
        short=dataclasses.replace(load_recipe("short"), images=SHORT),
        measure_every=5,
        audit_every=audit_every,
        seed=seed,
    )
    folder = work.seed(seed) / name
    log = Log(folder / "log.jsonl")
    with open_run(folder, kind="netadapt", request={**limit, "seed": seed}) as run:
        log.note(BEGIN)
        return Family(
            run=run,
            start=work.start,
            data=data,
            device=TARGET.open(),
            runtime=TARGET.settings,
            model=work.model,
            settings=settings,
            events=log,
        )


def share_steps(work: Work, seed: int, budget: float, folder: Path) -> None:
    """Give a budget's run the steps that are the same for the first budget's."""
    steps = work.steps(seed, BUDGETS[0])
    least_ms = max(budget, BUDGETS[0]) * steps[0].ms
    for number, step in enumerate(steps):
        if number and min(goal(steps[: number + 1]), step.predicted_ms, step.ms) <= least_ms:
            break
        if not (folder / f"step-{number:02}.json").exists():
            copy_step(work, seed, step, folder, BUDGETS[0])


def goal(steps: Sequence[Step]) -> float:
    """What the last of these steps had to reach, in milliseconds."""
    schedule = reductions(REDUCTION, decay=0.96, start_ms=steps[0].ms, budget_ms=None)
    return schedule.goal_ms(steps[-2].predicted_ms)


def copy_step(work: Work, seed: int, step: Step, folder: Path, budget: float) -> None:
    for suffix in (".pt", ".json"):
        file = f"step-{step.step:02}{suffix}"
        shutil.copyfile(work.seed(seed) / f"netadapt-{budget}" / file, folder / file)


def short_images(steps: Sequence[Step]) -> int:
    """Images that all short fine-tunes of some steps have seen."""
    return SHORT * sum(step.proposals - step.dominated - step.stopped for step in steps[1:])


# Rivals


def shapes(work: Work, seed: int) -> None:
    """The rivals' networks of all sizes, and what the latency model says of them. All seeds choose from the same."""
    from rivals import PRUNERS, pruned

    data, start_ = work.data(), work.start
    (work.folder / "sizes").mkdir(exist_ok=True)
    batches = list(Batches(split=data.train, data=data, batch_size=64, seed=seed).stream(start=0, images=512))
    slicer = Slicer.of(start_, data, Settings(budget_ratio=0.5, short=load_recipe("short"), seed=seed))
    ways = {"uniform": scaled(slicer), **{name: pruned(start_, name, batches) for name in PRUNERS}}
    sizes = []
    for method, networks in ways.items():
        for number, network in enumerate(networks):
            path = work.folder / "sizes" / f"{method}.{number}.pt"
            save_checkpoint(path, network)
            sizes.append({"method": method, "file": str(path), "ms": work.model.predict(network.architecture).ms})
    (work.folder / "sizes.json").write_text(json.dumps(sizes, indent=1))


def scaled(slicer: Slicer) -> Iterator[Checkpoint]:
    """The start at every width multiplier; equal architectures once."""
    seen = set()
    found = widths(slicer.start.architecture)
    for step in range(GRID - 1, 0, -1):
        counts = {width.name: multiplied(width, step / GRID, DIVISOR) for width in found}
        narrow = set_widths(slicer.start.architecture, [(width, counts[width.name]) for width in found])
        if narrow.fingerprint not in seen:
            seen.add(narrow.fingerprint)
            yield slicer.narrowed(counts)


def compared(work: Work, seed: int, budget: float) -> list[tuple[str, str, Path]]:
    """Networks of a comparison before their long fine-tunes: method, size, and file.

    NetAdapt's, and of each rival the nearest sizes below and above its latency by the model.
    """
    goal_ms = work.model.predict(load_checkpoint(work.trimmed(seed, budget)).architecture).ms
    sizes = json.loads((work.folder / "sizes.json").read_text())
    found = [("netadapt", "trimmed", work.trimmed(seed, budget))]
    for method in dict.fromkeys(one["method"] for one in sizes):
        ours = [(one["ms"], one["file"]) for one in sizes if one["method"] == method]
        found.append((method, "smaller", Path(max(one for one in ours if one[0] <= (1 - MARGIN) * goal_ms)[1])))
        found.append((method, "larger", Path(min(one for one in ours if one[0] >= (1 + MARGIN) * goal_ms)[1])))
    return found


# Long fine-tunes


def tune(work: Work, seed: int, long: int = LONG) -> None:
    """Fine-tune every network of a seed for long, equally many images in all, and judge it on the test split."""
    data = work.data()
    for budget in work.budgets:
        spent = short_images(work.steps(seed, budget))
        for method, size, path in compared(work, seed, budget):
            images = long if method == "netadapt" else long + spent
            result = tuned_file(work.seed(seed), budget, method, size, long)
            if not result.exists() and (long == LONG or method in ("netadapt", "uniform")):
                accuracy = tuned(path, result, data, images, seed)
                print(seed, budget, method, size, images, f"{accuracy:.4f}", flush=True)


def longer(work: Work, seed: int) -> None:
    """The same networks of NetAdapt and of uniform scaling, fine-tuned for longer."""
    tune(work, seed, LONGER)


def tuned_file(folder: Path, budget: float, method: str, size: str, long: int) -> Path:
    """Where a fine-tuned network is kept, in the folder of its seed."""
    return folder / f"{method}.{budget}.{size}{'' if long == LONG else f'.{long}'}.pt"


def recipe(images: int) -> Recipe:
    """Of all long fine-tunes."""
    return dataclasses.replace(load_recipe("short"), images=images, lr=0.02, warm_up=0.2, ema_decay=0.99)


def tuned(start_: Path, result: Path, data: Data, images: int, seed: int) -> float:
    """Fine-tune a network; its accuracy on the test split."""
    began = time.process_time()
    state_file = result.with_suffix(".state")
    trained = train(load_checkpoint(start_), data, recipe(images), seed=seed, state_file=state_file).checkpoint
    judged = evaluate(trained.network(), data.test, data)
    metrics = {"test_accuracy": judged.accuracy, "test_loss": judged.loss, "cpu_s": time.process_time() - began}
    save_checkpoint(result, dataclasses.replace(trained, metrics={**trained.metrics, **metrics}))
    state_file.unlink(missing_ok=True)
    return judged.accuracy


# What was skipped


def audit(work: Work, seed: int) -> None:
    """Some steps once more, with no proposal skipped or stopped."""
    data = work.data()
    least = min(work.budgets)
    steps = work.steps(seed, least)
    for number in range(2 + seed, len(steps) - 1, 4):
        again = family(work, data, seed, f"audit-{number:02}", audit_every=1, budget_ratio=least)
        for step in steps[:number]:
            copy_step(work, seed, step, again.run.path, least)
        list(itertools.islice(trimming(again), number + 1))


# The record


def measure(work: Work, seed: int) -> None:
    """Measure the start and all that is compared side by side; a long fine-tune changes no latency."""
    paths = [path for each in SEEDS for budget in BUDGETS for *_, path in compared(work, each, budget)]
    paths = [work.folder / "start" / "network.pt", *dict.fromkeys(paths)]
    models = [onnx_model(load_checkpoint(path)) for path in paths]
    timings = TARGET.open().measure(models, settings=TARGET.settings, effort=EFFORT)
    found = {
        str(path): {
            "ms": timing.low_ms,
            "stable": timing.stable,
            "half_difference": timing.half_difference,
            "of_start": dataclasses.asdict(compare(timing, timings[0])),
        }
        for path, timing in zip(paths, timings, strict=True)
    }
    (work.folder / "timings.json").write_text(json.dumps(found, indent=1))


def record(work: Work, seed: int) -> None:
    """Write the record."""
    timings = json.loads((work.folder / "timings.json").read_text())
    data, model, begin = work.data(), work.model, work.start
    predicted = model.predict(begin.architecture)
    lines: list[dict[str, Any]] = [
        {
            "kind": "start",
            "accuracy": evaluate(begin.network(), data.test, data).accuracy,
            **timings[str(work.folder / "start" / "network.pt")],
            "predicted_ms": predicted.ms,
            "low_ms": predicted.low_ms,
            "high_ms": predicted.high_ms,
            "macs": lower(begin.architecture).macs,
            "images": begin.metrics["images"],
            "held_out": model.held_out.as_json(),
        }
    ]
    every = [(each, budget, *one) for each in SEEDS for budget in BUDGETS for one in compared(work, each, budget)]
    for (each, budget, method, size, before), long in itertools.product(every, (LONG, LONGER)):
        path = tuned_file(work.seed(each), budget, method, size, long)
        if not path.exists():
            continue
        network, steps = load_checkpoint(path), work.steps(each, budget)
        line = {
            "kind": "result",
            "method": method,
            "size": size,
            "budget": budget,
            "seed": each,
            "long": long,
            "accuracy": network.metrics["test_accuracy"],
            "images": network.metrics["images"] + (short_images(steps) if method == "netadapt" else 0),
            **timings[str(before)],
            "macs": lower(network.architecture).macs,
            "architecture": network.architecture.to_dict(),
        }
        if method == "netadapt":
            low, high = Calibrated(model, steps[-1].factor).interval(network.architecture)
            line |= {"start_ms": steps[0].ms, "budget_ms": budget * steps[0].ms, "predicted_ms": steps[-1].predicted_ms}
            line |= {"measured_in_run_ms": steps[-1].measured_ms, "drift": steps[-1].drift}
            line |= {"low_ms": low, "high_ms": high}
        lines.append(line)
    for each in SEEDS:
        for budget in BUDGETS:
            cpu_s = seconds(work.seed(each) / f"netadapt-{budget}")
            for step in work.steps(each, budget):
                told = {"seed": each, "budget": budget, "cpu_s": cpu_s.get(step.step)}
                lines.append({"kind": "step", **told, **dataclasses.asdict(step)})
        for folder in sorted(work.seed(each).glob("audit-*")):
            last = json.loads(max(folder.glob("step-*.json")).read_text())
            lines.append({"kind": "audit", "seed": each, "cpu_s": seconds(folder).get(last["step"]), **last})
    write_record(HERE / "result.jsonl", lines)


def seconds(folder: Path) -> dict[int, float]:
    """CPU seconds of the steps that a run of NetAdapt made."""
    found: dict[int, float] = {}
    before = 0.0
    for line in (folder / "log.jsonl").read_text().splitlines():
        told = json.loads(line)
        step = re.match(r"step (\d+): .* proposals, ", told["note"])
        if step:
            found[int(step[1])] = told["cpu_s"] - before
        if step or told["note"] == BEGIN:
            before = told["cpu_s"]
    return found


def main() -> None:
    parts = {part.__name__: part for part in (start, profile, shapes, adapt, tune, longer, measure, audit, record)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, choices=BUDGETS, help="only this one; by default all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    budgets = BUDGETS if arguments.budget is None else (arguments.budget,)
    parts[arguments.part](Work(arguments.work, arguments.data, budgets), arguments.seed)


if __name__ == "__main__":
    main()

"""How well latency is predicted on this machine, and what that costs, beside the noise of the same measurements.

    python -m experiments.benchmarks.2026-11-25_latency_model.run --machine NAME --minutes 20 [--target host-int8]

Measures for so many minutes (``--minutes 0``: not at all) and goes on where an earlier call ended; then evaluates what there
is of that machine and writes ``result.jsonl``, the tables in ``README.md`` and, where matplotlib is installed, the plots. It
needs the machine for itself; ``NAME/device.json`` says which that is.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record import write_record
from latency.errors import UnmeasuredKernel
from latency.fitting import accuracy
from latency.model import BUSIEST, Measurement, require_equal
from latency.planning import kernels
from latency.profiling import fit_model, profile_target, read_measurements
from latency.provenance import Provenance
from latency.samples import varied_architectures
from latency.settings import Precision
from latency.target import Target, load_target
from latency.timing import Timing, held_to_one_speed
from searchspace.architecture import lower

from . import methods, plots
from .methods import Method
from .tasks import VARIED, WIDTHS, Sample, Task, measure, networks, read

HERE = Path(__file__).parent
MACHINES = ("xeon", "epyc")
SIZES = (16, 32, 64, 128, 200)  # of the learning curve
REPEATS = 5
FEWEST = 12  # networks below which nothing is fitted or compared
FIRST = 24  # networks that are profiled as they come, before those that tell most, as `nas profile` does

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of measuring, at most")
    parser.add_argument("--target", choices=("host", "host-int8"), default="host")
    parser.add_argument(
        "--machine", choices=MACHINES, required=True, help="whose measurements, or what this one is called"
    )
    parser.add_argument(
        "--profile-minutes", type=float, help="of these, for what `nas profile` measures; half if not given"
    )
    options = parser.parse_args()
    target = load_target(options.target)
    folder = HERE / options.machine / options.target
    begin = time.monotonic()
    if options.minutes > 0:
        provenance = here(folder.parent / "device.json", target)
        share = options.minutes / 2 if options.profile_minutes is None else options.profile_minutes
        if share > 0:
            profile(target, folder, limit_s=60 * share)
        left_s = 60 * options.minutes - (time.monotonic() - begin)
        measure(target.open(), folder / "measurements.jsonl", settings=target.settings, limit_s=left_s, tell=tell)
    else:
        provenance = Provenance.from_json(json.loads((folder.parent / "device.json").read_text(encoding="utf-8")))
    rows = evaluate(folder, target, provenance)
    write_record(folder / "result.jsonl", rows)
    write_table(HERE / "README.md", rows, f"{options.machine} {target.name}")
    plots.draw(folder, rows, tell=tell)


def here(path: Path, target: Target) -> Provenance:
    """What this machine is, which must be what the earlier measurements beside `path` were made on."""
    provenance = target.open().describe()
    if path.exists():
        require_equal(
            target.name, provenance.key, Provenance.from_json(json.loads(path.read_text(encoding="utf-8"))).key
        )
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(provenance.as_json(), indent=1) + "\n", encoding="utf-8")
    return provenance


def profile(target: Target, folder: Path, *, limit_s: float) -> None:
    """What ``nas profile --networks N`` does, with the measurements kept here."""
    profile_target(
        target,
        varied_architectures(0),
        networks=VARIED[target.settings.precision],
        limit_s=limit_s,
        in_order=FIRST,
        folder=folder,
        on_progress=lambda state: tell(f"{state.networks} of {state.wanted} networks profiled"),
    )


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def evaluate(folder: Path, target: Target, provenance: Provenance) -> list[Row]:
    """Every result that the measurements so far allow."""
    precision, block = target.settings.precision, provenance.nchwc_block
    timings: dict[tuple[str, str], Timing] = {}
    profiles: dict[str, list[float]] = {}
    for row in read(folder / "measurements.jsonl"):
        if row["purpose"] == "profile":
            profiles[row["name"]] = row["ms"]
        else:
            timings[row["purpose"], row["name"]] = Timing.from_json(row["timing"])
    timings = dict(zip(timings, held_to_one_speed(list(timings.values())), strict=True))
    tasks = {purpose: networks(purpose) for purpose in ("fit", "held out", "reference", "staircase")}
    profiled = [one for log in sorted(folder.glob(f"{target.name}-*.jsonl")) for one in read_measurements(log)]
    tasks["varied"] = [Task("varied", str(index), one.architecture) for index, one in enumerate(profiled)]
    profiled_timings = held_to_one_speed([one.timing for one in profiled])
    timings |= {("varied", str(index)): timing for index, timing in enumerate(profiled_timings)}
    sets = {purpose: samples(found, timings, block=block, precision=precision) for purpose, found in tasks.items()}
    rows: list[Row] = [{"result": "measured", **{name: len(found) for name, found in sets.items()}, **effort(timings)}]
    ours = partial(methods.ours, block=block)
    fitted, held_out, varied = sets["fit"], sets["held out"], sets["varied"]
    everything = [*fitted, *varied]
    for what, how, known, wanted in (
        ("held out", "ours", fitted, held_out),
        ("held out above 100 px", "ours", fitted, [one for one in held_out if resolution(one) > 100]),
        ("held out", "ours, `nas profile`", varied, held_out),
        ("references", "ours, `nas profile`", varied, sets["reference"]),
        ("references", "ours, all networks", everything, sets["reference"]),
    ):
        rows += [
            {**row, **honesty(known, wanted, target, provenance)} for row in compared(what, how, ours, known, wanted)
        ]
    rows += interrupted_ones_too(sets, tasks, timings, ours, block=block, precision=precision)
    rows += side_by_side(sets, timings, profiles, ours=ours)
    rows += learning_curve(fitted, held_out, ours)
    rows += staircase(everything, sets["staircase"], ours)
    return rows


def interrupted_ones_too(
    sets: Mapping[str, Sequence[Sample]],
    tasks: Mapping[str, Sequence[Task]],
    timings: Mapping[tuple[str, str], Timing],
    ours: Method,
    *,
    block: int,
    precision: Precision,
) -> list[Row]:
    """Where others ran beside the measurement: also with networks most of whose runs were interrupted, but which are stable."""
    more = {
        name: samples(found, timings, block=block, precision=precision, interrupted=True)
        for name, found in tasks.items()
    }
    if sum(map(len, more.values())) == sum(map(len, sets.values())):
        return []
    everything = [*more["fit"], *more["varied"]]
    return [
        *compared("held out, interrupted ones too", "ours, all networks", ours, everything, more["held out"]),
        *compared("references, interrupted ones too", "ours, all networks", ours, everything, more["reference"]),
    ]


def honesty(known: Sequence[Sample], wanted: Sequence[Sample], target: Target, provenance: Provenance) -> Row:
    """What share of networks lies in the 90 % interval of the product's own model, and how many of them it refuses."""
    model = fit_model(target, provenance, tuple(Measurement(one.architecture, one.timing) for one in known))
    within, refused = [], 0
    for one in wanted:
        try:
            found = model.predict(one.architecture)
        except UnmeasuredKernel:
            refused += 1
        else:
            within.append(found.low_ms <= one.ms <= found.high_ms)
    return {"in_interval": float(np.mean(within)), "refused": refused}


def samples(
    tasks: Sequence[Task],
    timings: Mapping[tuple[str, str], Timing],
    *,
    block: int,
    precision: Precision,
    interrupted: bool = False,
) -> list[Sample]:
    """The networks whose measurements can be trusted, with their kernels; if asked for also those that were interrupted."""
    found = []
    for task in tasks:
        timing = timings.get((task.purpose, task.name))
        if timing is None or task.architecture is None:
            continue
        if Measurement(task.architecture, timing).trusted or (interrupted and timing.stable):
            found.append(
                Sample(task, timing, kernels(lower(task.architecture), nchwc_block=block, precision=precision))
            )
    return found


def resolution(sample: Sample) -> int:
    return sample.architecture.resolution


def effort(timings: Mapping[tuple[str, str], Timing]) -> Row:
    unstable = sum(not timing.stable for timing in timings.values())
    loads = [timing.load for timing in timings.values() if timing.load is not None]
    return {
        "unstable": unstable,
        "mostly_interrupted": sum(timing.interrupted > BUSIEST for timing in timings.values()),
        "device_seconds": round(sum(timing.device_s for timing in timings.values()), 1),
        "median_load": float(np.median(loads)) if loads else None,
    }


def compared(what: str, how: str, method: Method, known: Sequence[Sample], wanted: Sequence[Sample]) -> list[Row]:
    """One row for a method, beside what two halves of the same measurements differ by."""
    if len(known) < FEWEST or len(wanted) < FEWEST:
        return []
    predicted = method(known, wanted)
    truth = np.array([one.ms for one in wanted])
    noise = np.array([one.timing.half_difference for one in wanted])
    return [
        {
            "result": "accuracy",
            "networks": what,
            "method": how,
            "fitted_to": len(known),
            **accuracy(predicted, truth).as_json(),
            "noise_median": float(np.median(noise)),
            "noise_p95": float(np.quantile(noise, 0.95)),
            "points": [
                [one.task.name, round(one.ms, 5), round(float(guess), 5)]
                for one, guess in zip(wanted, predicted, strict=True)
            ],
        }
    ]


def side_by_side(
    sets: Mapping[str, list[Sample]],
    timings: Mapping[tuple[str, str], Timing],
    profiles: Mapping[str, list[float]],
    *,
    ours: Method,
) -> list[Row]:
    """All methods on the held-out networks all of whose blocks were measured by themselves."""
    block_ms = {name: timing.low_ms for (purpose, name), timing in timings.items() if purpose == "block"}
    known = sets["fit"]
    wanted = [one for one in sets["held out"] if all(name in block_ms for name in methods.block_names(one))]
    if not block_ms:
        return []

    def table(known: Sequence[Sample], wanted: Sequence[Sample], *, calibrated: bool) -> "methods.Array":
        return methods.block_table(wanted, block_ms, calibrated=calibrated)

    ways: dict[str, Method] = {
        "MACs": methods.macs_linear,
        "roofline": methods.roofline,
        "table of blocks": partial(table, calibrated=False),
        "table of blocks, calibrated": partial(table, calibrated=True),
        "ours": ours,
    }
    if len(profiles) >= FEWEST:
        ways["kernel regressors"] = partial(methods.kernel_regressors, profiles=profiles)
    return [row for how, method in ways.items() for row in compared("side by side", how, method, known, wanted)]


def learning_curve(known: Sequence[Sample], wanted: Sequence[Sample], ours: Method) -> list[Row]:
    """Accuracy by the number of networks fitted to and the device time they took, over random choices."""
    source = np.random.default_rng(0)
    rows: list[Row] = []
    for size in SIZES:
        runs = []
        for _ in range(REPEATS if size < len(known) else 1):
            chosen = [known[index] for index in source.permutation(len(known))[:size]]
            found = compared("learning curve", "ours", ours, chosen, wanted) if len(chosen) >= 8 else []
            if size < FEWEST and len(wanted) >= FEWEST and len(chosen) == size:
                guess, truth = ours(chosen, wanted), np.array([one.ms for one in wanted])
                found = [accuracy(guess, truth).as_json()]
            runs += [{**row, "device_s": sum(one.timing.device_s for one in chosen)} for row in found]
        if runs and size <= len(known):
            keys = ("within_5", "within_10", "median_error", "kendall", "device_s")
            rows.append(
                {
                    "result": "learning curve",
                    "fitted_to": size,
                    **{key: float(np.mean([run[key] for run in runs])) for key in keys},
                    "within_10_worst": min(run["within_10"] for run in runs),
                }
            )
    return rows


def staircase(known: Sequence[Sample], wanted: Sequence[Sample], ours: Method) -> list[Row]:
    """Predicted and measured milliseconds over all widths of one layer."""
    found = compared("staircase", "ours, all networks", ours, known, wanted)
    widths = {f"staircase {index}": width for index, width in enumerate(WIDTHS)}
    return [
        {**row, "result": "staircase", "points": [[widths[name], ms, guess] for name, ms, guess in row["points"]]}
        for row in found
    ]


def write_table(path: Path, rows: Sequence[Row], target: str) -> None:
    """Put the results of a target into the README, between its two marks."""
    lines = [
        "| networks | method | fitted to | n | within ±5 % | ±10 % | median error | 95th percentile | Kendall "
        "| in the 90 % interval | noise: median | 95th |",
        "| --- " * 12 + "|",
    ]
    for row in rows:
        if row["result"] in ("accuracy", "staircase"):
            interval = f"{row['in_interval']:.1%}" if "in_interval" in row else "–"
            lines.append(
                f"| {row['networks']} | {row['method']} | {row['fitted_to']} | {row['n']} | {row['within_5']:.1%} | "
                f"{row['within_10']:.1%} | {row['median_error']:.1%} | {row['p95_error']:.1%} | {row['kendall']:.3f} | "
                f"{interval} | {row['noise_median']:.1%} | {row['noise_p95']:.1%} |"
            )
    lines += [
        "",
        "| fitted to | device seconds | within ±5 % | ±10 % | ±10 %, worst draw | median error |",
        "| --- " * 6 + "|",
    ]
    lines += [
        f"| {row['fitted_to']} | {row['device_s']:.0f} | {row['within_5']:.1%} | {row['within_10']:.1%} | "
        f"{row['within_10_worst']:.1%} | {row['median_error']:.1%} |"
        for row in rows
        if row["result"] == "learning curve"
    ]
    begin, end = f"<!-- results: {target} -->\n", f"<!-- end of results: {target} -->"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    path.write_text(before + begin + "\n" + "\n".join(lines) + "\n\n" + end + rest.split(end)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

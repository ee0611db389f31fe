"""How well latency is predicted on this machine, and what that costs, beside the noise of the same measurements.

    python -m experiments.benchmarks.2026-11-22_latency_model.run --minutes 20

Measures for so many minutes (``--minutes 0``: not at all) and goes on where an earlier call ended; then evaluates what there
is and writes ``result.jsonl``, the table in ``README.md`` and, where matplotlib is installed, the plots. It needs the machine
for itself.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record import write_record
from latency.fitting import accuracy
from latency.host import HostDevice
from latency.model import BUSIEST, Measurement
from latency.planning import kernels
from latency.target import load_target
from latency.timing import Timing
from searchspace.architecture import lower

from . import methods, plots
from .methods import Method
from .tasks import WIDTHS, Sample, Task, measure, networks, read

HERE = Path(__file__).parent
SIZES = (8, 16, 32, 64, 128, 200)  # of the learning curve
REPEATS = 5
FEWEST = 12  # networks below which nothing is fitted or compared
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of measuring, at most")
    parser.add_argument("--measurements", type=Path, default=HERE / "measurements.jsonl", help="where they are kept")
    options = parser.parse_args()
    settings = load_target("host").settings
    device = HostDevice("host")
    if options.minutes > 0:
        measure(device, options.measurements, settings=settings, limit_s=60 * options.minutes, tell=tell)
    rows = evaluate(options.measurements, block=device.describe().nchwc_block)
    write_record(HERE / "result.jsonl", rows)
    write_table(HERE / "README.md", rows)
    plots.draw(HERE, rows, tell=tell)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def evaluate(path: Path, *, block: int) -> list[Row]:
    """Every result that the measurements so far allow."""
    timings: dict[tuple[str, str], Timing] = {}
    profiles: dict[str, list[float]] = {}
    for row in read(path):
        if row["purpose"] == "profile":
            profiles[row["name"]] = row["ms"]
        else:
            timings[row["purpose"], row["name"]] = Timing.from_json(row["timing"])
    sets = {
        purpose: samples(networks(purpose), timings, block=block)
        for purpose in ("fit", "held out", "varied", "reference", "staircase")
    }
    rows: list[Row] = [{"result": "measured", **{name: len(found) for name, found in sets.items()}, **effort(timings)}]
    ours = partial(methods.ours, block=block)
    everything = [*sets["fit"], *sets["varied"]]
    rows += compared("held out", "ours", ours, sets["fit"], sets["held out"])
    large = [one for one in sets["held out"] if resolution(one) > 100]
    rows += compared("held out above 100 px", "ours", ours, sets["fit"], large)
    rows += compared("references", "ours, varied networks", ours, sets["varied"], sets["reference"])
    rows += compared("references", "ours, all networks", ours, everything, sets["reference"])
    rows += side_by_side(sets, timings, profiles, ours=ours)
    rows += learning_curve(sets["fit"], sets["held out"], ours)
    rows += staircase(everything, sets["staircase"], ours)
    return rows


def samples(tasks: Sequence[Task], timings: Mapping[tuple[str, str], Timing], *, block: int) -> list[Sample]:
    """The networks whose measurements can be trusted, with their kernels."""
    found = []
    for task in tasks:
        timing = timings.get((task.purpose, task.name))
        if timing is None or task.architecture is None:
            continue
        if Measurement(task.architecture, timing).trusted:
            found.append(Sample(task, timing, kernels(lower(task.architecture), nchwc_block=block)))
    return found


def resolution(sample: Sample) -> int:
    assert sample.task.architecture is not None
    return sample.task.architecture.resolution


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


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Put the results into the README, between its two marks."""
    lines = [
        "| networks | method | n | within ±5 % | ±10 % | median error | 95th percentile | Kendall | noise: median | 95th |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if row["result"] in ("accuracy", "staircase"):
            lines.append(
                f"| {row['networks']} | {row['method']} | {row['n']} | {row['within_5']:.1%} | {row['within_10']:.1%} | "
                f"{row['median_error']:.1%} | {row['p95_error']:.1%} | {row['kendall']:.3f} | "
                f"{row['noise_median']:.1%} | {row['noise_p95']:.1%} |"
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
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    path.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

"""`nas measure`: networks and ONNX models of any origin, timed on a device side by side."""

import json as plain_json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from nas.cli.console import app, note, progress_bar, show_json, stdout
from nas.cli.latency import accepted, counting, naming, typed, waiting_for, warn_of_emulation
from nas.cli.options import Channels, Classes, Json, Resolution, Target, Tolerance, WidthMultiplier, networks
from nas.errors import StudyError

if TYPE_CHECKING:
    from latency.device import Device
    from latency.provenance import Provenance
    from latency.settings import Precision
    from latency.target import Target as TargetValue
    from latency.timing import Timing
    from searchspace.architecture import Architecture

LIMIT_S = 20.0


@dataclass(frozen=True)
class Measurable:
    """A model to measure.

    Attributes:
        model: serialised ONNX.
        predicted_ms: by the target's latency model, where that can tell.
        batch: images that it takes at a time.
        remarks: what people should know.
    """

    model: bytes
    predicted_ms: float | None = None
    batch: int = 1
    remarks: tuple[str, ...] = ()


@app.command()
def measure(
    networks: Annotated[
        list[str],
        typer.Argument(
            metavar="ARCH|model.onnx…", help="Names, files, checkpoints, runs or ONNX models.", callback=networks
        ),
    ],
    target: Target = "host",
    ops: Annotated[
        bool, typer.Option("--ops", help="Milliseconds of each executed node, by the runtime's profiler.")
    ] = False,
    width_multiplier: WidthMultiplier = 1.0,
    resolution: Resolution = None,
    classes: Classes = None,
    channels: Channels = None,
    tolerance: Tolerance = None,
    limit_s: Annotated[
        float, typer.Option(help="Seconds of device time after which a network is measured no further.")
    ] = LIMIT_S,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File for the raw measurements with their provenance, JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure networks on the device; several are interleaved and compared with the first.

    Sizes that an ONNX model leaves open are filled in by --resolution and --channels, an open batch is 1.

    Example: [bold]nas measure mobilenet_v2 mobilenet_v3_large --target host[/]
    """
    from latency.comparison import compare
    from latency.settings import Effort
    from latency.target import load_target

    where = load_target(target)
    options = {
        "width_multiplier": width_multiplier,
        "resolution": resolution,
        "classes": classes,
        "channels": channels,
    }
    if not 0 < limit_s < math.inf:
        raise StudyError(f"--limit-s must be above 0, got {limit_s:g}")
    effort = Effort(processes=3, slices=12, limit_s=limit_s)
    if tolerance is not None:
        effort = replace(effort, tolerance=accepted(tolerance))
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise StudyError(f"-o {output}: must be a file in a folder that there is")
    measurables = [_measurable(text, where, options) for text in networks]
    for remark in (remark for one in measurables for remark in one.remarks):
        note(remark)
    device = where.open()
    with device.reserve("measuring", on_wait=waiting_for(where.name)):
        provenance = device.describe()
        with progress_bar("measuring") as bar:
            timings = device.measure(
                [one.model for one in measurables],
                settings=where.settings,
                effort=effort,
                on_slice=counting(bar, f"measuring on {where.name}"),
            )
        if output is not None:
            _write_samples(output, where, provenance, networks, measurables, timings)
        rows = [
            {"name": text, **_told(timing, one.predicted_ms), **_looked_into(device, one.model, where, ops=ops)}
            for text, one, timing in zip(networks, measurables, timings, strict=True)
        ]
    warn_of_emulation(where.name, provenance)
    compared = [compare(timing, timings[0]) for timing in timings]
    ratios = [
        {"name": text, "ratio": one.ratio, "low": one.low, "high": one.high}
        for text, one in zip(networks, compared, strict=True)
    ]
    told = {"target": where.name, "cpu": provenance.cpu, "emulated": provenance.emulated}
    if output is not None:
        told["output"] = str(output)
    if json:
        show_json({**told, **rows[0]} if len(rows) == 1 else {**told, "networks": rows, "ratios": ratios})
        return
    _show_measured(f"{where.name}: {provenance.cpu}", rows, ratios)


def _measurable(text: str, target: "TargetValue", options: dict[str, Any]) -> Measurable:
    """The model to measure, and its predicted milliseconds; why not, where the target's latency model cannot tell them."""
    from latency.errors import LatencyError
    from latency.foreign import read_foreign
    from latency.store import load_predictor
    from nas.arch import load_architecture

    precision = target.settings.precision
    if text.endswith(".onnx"):
        foreign = read_foreign(Path(text), resolution=options["resolution"], channels=options["channels"])
        others = {name: options[name] for name in ("width_multiplier", "classes")}
        remarks = (*foreign.remarks, *(f"{option} does not apply to {text}" for option in typed(others)))
        if precision == "int8" and not foreign.quantized:
            remarks = (
                *remarks,
                f"{text} computes in float32 and is measured so, though {target.name} is a target of 8 bits",
            )
        return Measurable(foreign.model, batch=foreign.batch, remarks=remarks)
    architecture = load_architecture(text, **options)
    model = _onnx(architecture, text, precision)
    try:
        return Measurable(model, load_predictor(target).predict_ms(architecture))
    except LatencyError as reason:
        return Measurable(model, remarks=(f"no prediction beside {text}: {naming(reason, text, options)}",))


def _write_samples(
    path: Path,
    target: "TargetValue",
    provenance: "Provenance",
    names: Sequence[str],
    measurables: Sequence[Measurable],
    timings: "Sequence[Timing]",
) -> None:
    """Writes every run's nanoseconds, and where and how they were measured; `latency.timing.Timing.from_json` reads a timing."""
    from searchspace.files import write_atomically

    told = provenance.measured(timings).as_json()
    content = {
        "target": target.name,
        "settings": target.settings.as_json(),
        "provenance": {key: value for key, value in told.items() if key != "batch"},  # each network has its own
        "networks": [
            {"name": name, "batch": one.batch, "timing": timing.as_json()}
            for name, one, timing in zip(names, measurables, timings, strict=True)
        ],
    }
    write_atomically(path, plain_json.dumps(content, indent=1).encode())


def _told(timing: "Timing", predicted_ms: float | None) -> dict[str, Any]:
    return {
        "median_ms": timing.median_ms,
        "low_ms": timing.low_ms,
        "p90_ms": timing.p90_ms,
        "mad_ms": timing.mad_ms,
        "runs": timing.runs,
        "stable": timing.stable,
        "half_difference": timing.half_difference,
        "predicted_ms": predicted_ms,
    }


def _looked_into(device: "Device", model: bytes, target: "TargetValue", *, ops: bool) -> dict[str, Any]:
    """What is asked of the device apart from time: peak memory and, if wanted, the nodes it executed."""
    nodes = device.profile(model, settings=target.settings) if ops else ()
    return {
        "peak_bytes": device.memory(model, settings=target.settings),
        "ops": [{"name": node.name, "op": node.op, "ms": node.ms} for node in nodes],
    }


def _show_measured(target: str, rows: list[dict[str, Any]], ratios: list[dict[str, Any]]) -> None:
    table = Table("network", "ms", "median", "p90", "predicted", "MiB", "stable", title=f"Measured on {escape(target)}")
    for row in rows:
        table.add_row(
            escape(row["name"]),
            f"{row['low_ms']:.4g}",
            f"{row['median_ms']:.4g}",
            f"{row['p90_ms']:.4g}",
            "–" if row["predicted_ms"] is None else f"{row['predicted_ms']:.4g}",
            "–" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}",
            _settled(row),
        )
    stdout.print(table)
    for ratio in ratios[1:]:
        interval = f"{ratio['low']:.3f} … {ratio['high']:.3f}"
        times = f"takes {ratio['ratio']:.3f} times ({interval}) as long as"
        stdout.print(escape(f"{ratio['name']} {times} {ratios[0]['name']}"))
    for row in rows:
        if row["ops"]:
            total = sum(node["ms"] for node in row["ops"])
            nodes = Table(
                "node", "op", "ms", "share", title=escape(f"{row['name']} (profiling adds microseconds to each node)")
            )
            for node in row["ops"]:
                nodes.add_row(escape(node["name"]), node["op"], f"{node['ms']:.4f}", f"{node['ms'] / total:.1%}")
            stdout.print(nodes)


def _settled(row: dict[str, Any]) -> str:
    if row["half_difference"] == math.inf:
        return "NO, hardly ever undisturbed at full speed"
    return f"{'yes' if row['stable'] else 'NO'}, ±{row['half_difference']:.1%}"


def _onnx(architecture: "Architecture", source: str, precision: "Precision") -> bytes:
    """The ONNX model of a checkpoint, or of an architecture with random weights, in the target's precision."""
    from latency.qdq import to_qdq
    from latency.stand_in import stand_in
    from nas.arch import CHECKPOINTS

    if source.endswith(CHECKPOINTS):
        from nas.checkpoint import load_checkpoint
        from nas.deployment import onnx_model

        model = onnx_model(load_checkpoint(Path(source)))
        return to_qdq(model) if precision == "int8" else model
    from searchspace.architecture import lower

    return stand_in(lower(architecture), precision)

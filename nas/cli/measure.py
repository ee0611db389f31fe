"""`nas measure`: networks and ONNX models of any origin, timed on a device side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from nas.cli.console import app, note, progress_bar, show_json, stdout
from nas.cli.latency import counting, waiting_for, warn_of_emulation
from nas.cli.options import Channels, Classes, Json, Resolution, Target, WidthMultiplier, networks
from nas.errors import ExportError

if TYPE_CHECKING:
    from latency.device import Device
    from latency.settings import Precision
    from latency.target import Target as TargetValue
    from latency.timing import Timing
    from searchspace.architecture import Architecture


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
    json: Json = False,
) -> None:
    """Measure networks on the device; several are interleaved and compared with the first.

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
    models, predictions = zip(*(_measurable(text, where, options) for text in networks), strict=True)
    device = where.open()
    effort = Effort(processes=3, slices=12, limit_s=20.0)
    with device.reserve("measuring", on_wait=waiting_for(where.name)):
        provenance = device.describe()
        with progress_bar("measuring") as bar:
            timings = device.measure(
                models, settings=where.settings, effort=effort, on_slice=counting(bar, f"measuring on {where.name}")
            )
        rows = [
            {"name": text, **_told(timing, predicted), **_looked_into(device, model, where, ops=ops)}
            for text, model, timing, predicted in zip(networks, models, timings, predictions, strict=True)
        ]
    for text, predicted in zip(networks, predictions, strict=True):
        if isinstance(predicted, str):
            note(f"no prediction beside {text}: {predicted}")
    warn_of_emulation(where.name, provenance)
    compared = [compare(timing, timings[0]) for timing in timings]
    ratios = [
        {"name": text, "ratio": one.ratio, "low": one.low, "high": one.high}
        for text, one in zip(networks, compared, strict=True)
    ]
    told = {"target": where.name, "cpu": provenance.cpu, "emulated": provenance.emulated}
    if json:
        show_json({**told, **rows[0]} if len(rows) == 1 else {**told, "networks": rows, "ratios": ratios})
        return
    _show_measured(f"{where.name}: {provenance.cpu}", rows, ratios)


def _measurable(text: str, target: "TargetValue", options: dict[str, Any]) -> tuple[bytes, float | str | None]:
    """The model to measure, and its predicted milliseconds; why not, where the target's latency model cannot tell them."""
    from latency.errors import LatencyError
    from latency.store import load_predictor
    from nas.arch import load_architecture

    if text.endswith(".onnx"):
        try:
            return Path(text).read_bytes(), None
        except OSError as error:
            raise ExportError(f"{text}: an ONNX model is needed, it cannot be read ({error.strerror})") from None
    architecture = load_architecture(text, **options)
    model = _onnx(architecture, text, target.settings.precision)
    try:
        return model, load_predictor(target).predict_ms(architecture)
    except LatencyError as reason:
        return model, str(reason)


def _told(timing: "Timing", predicted: float | str | None) -> dict[str, Any]:
    return {
        "median_ms": timing.median_ms,
        "low_ms": timing.low_ms,
        "p90_ms": timing.p90_ms,
        "mad_ms": timing.mad_ms,
        "runs": timing.runs,
        "stable": timing.stable,
        "half_difference": timing.half_difference,
        "predicted_ms": predicted if isinstance(predicted, float) else None,
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
            f"{'yes' if row['stable'] else 'NO'}, ±{row['half_difference']:.1%}",
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

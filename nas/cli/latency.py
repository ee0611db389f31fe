"""`nas targets`, `nas profile`, `nas predict` and `nas measure`: what is known of devices, and finding out more."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from nas.cli.console import app, note, progress_bar, show_json, stdout
from nas.cli.options import Channels, Classes, Json, Resolution, Seed, Target, WidthMultiplier

if TYPE_CHECKING:
    from latency.settings import Precision
    from searchspace.architecture import Architecture


@app.command()
def targets(
    name: Annotated[str | None, typer.Argument(help="Only this one, or a target's YAML file.")] = None,
    json: Json = False,
) -> None:
    """List the known targets, whether they are ready, and what is missing.

    Example: [bold]nas targets[/]
    """
    from latency.errors import LatencyError
    from latency.store import load_model
    from latency.target import known_targets, load_target

    rows = []
    for target in [load_target(name)] if name else [load_target(known) for known in known_targets()]:
        try:
            model = load_model(target)
            held_out = model.held_out
            reason = (
                f"latency model of {len(model.measurements)} networks, {held_out.within_10:.0%} within ±10 % held out"
            )
            ready = True
        except LatencyError as error:
            ready, reason = False, str(error)
        rows.append({"name": target.name, "basis": target.basis, "ready": ready, "reason": reason})
    if json:
        show_json({"targets": rows})
        return
    table = Table("target", "basis", "ready", "what is known or missing")
    for row in rows:
        table.add_row(str(row["name"]), str(row["basis"]), "yes" if row["ready"] else "no", str(row["reason"]))
    stdout.print(table)


@app.command()
def profile(
    target: Target = "host",
    minutes: Annotated[
        float | None, typer.Option(help="Time for measuring; by default 5, or until --networks.")
    ] = None,
    networks: Annotated[int | None, typer.Option(min=1, help="Measured networks there shall be in all.")] = None,
    space: Annotated[str | None, typer.Option(help="Measure networks of this space, instead of varied ones.")] = None,
    resolution: Annotated[int, typer.Option(min=1, help="Pixels a side, for a space that leaves it to the data.")] = 32,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure networks on a device and fit its latency model; a second call goes on where the first ended.

    Example: [bold]nas profile --target host --minutes 5[/]
    """
    from latency.profiling import Progress, profile_target, report
    from latency.samples import varied_architectures
    from latency.target import load_target
    from nas.errors import StudyError
    from nas.prediction import space_architectures
    from searchspace.space import load_space

    if minutes is not None and not minutes > 0:
        raise StudyError(f"--minutes must be above 0, got {minutes:g}")
    where = load_target(target)
    device = where.open()
    if space is None:
        architectures = varied_architectures(seed)
    else:
        drawn_from = load_space(space).adapt(channels=3, classes=10, resolution=resolution)
        architectures = space_architectures(
            drawn_from,
            nchwc_block=device.describe().nchwc_block,
            precision=where.settings.precision,
            seed=seed,
        )
    limit_s = 60 * minutes if minutes is not None else None if networks is not None else 300.0
    with progress_bar(f"profiling {where.name}") as bar:

        def show(state: Progress) -> None:
            what = f"measuring on {where.name}: {state.networks} networks"
            if state.wanted is not None:
                bar(what, state.networks, state.wanted)
            else:
                bar(what, round(state.seconds), round(state.limit_s or 0))

        model = profile_target(
            where, architectures, networks=networks, limit_s=limit_s, device=device, on_progress=show
        )
    told = report(model)
    if json:
        show_json(told)
        return
    held_out = model.held_out
    stdout.print(f"{where.name}: {told['networks']} networks, {told['device_seconds']} s of device time")
    stdout.print(
        f"held out: {held_out.within_5:.0%} within ±5 %, {held_out.within_10:.0%} within ±10 %, median error "
        f"{held_out.median_error:.1%}, 95th percentile {held_out.p95_error:.1%}, Spearman {held_out.spearman:.3f} "
        f"(n = {held_out.n}); measurement noise, 95th percentile: {model.noise_p95:.1%}"
    )


@app.command()
def predict(
    architectures: Annotated[list[str], typer.Argument(metavar="ARCH…", help="Names, files, checkpoints, or .jsonl.")],
    target: Target = "host",
    explain: Annotated[bool, typer.Option("--explain", help="Milliseconds of each block.")] = False,
    width_multiplier: WidthMultiplier = 1.0,
    resolution: Resolution = None,
    classes: Classes = None,
    channels: Channels = None,
    json: Json = False,
) -> None:
    """Predict latencies by the target's model; no device is touched.

    Example: [bold]nas predict mobilenet_v2 mobilenet_v3_large --target host[/]
    """
    from latency.store import load_model
    from latency.target import load_target
    from nas.arch import load_architecture

    model = load_model(load_target(target))
    options: dict[str, Any] = {
        "width_multiplier": width_multiplier,
        "resolution": resolution,
        "classes": classes,
        "channels": channels,
    }
    rows: list[dict[str, Any]] = []
    for text in architectures:
        loaded = _lines(text) if text.endswith(".jsonl") else [load_architecture(text, **options)]
        for architecture in loaded:
            found = model.predict(architecture)
            row: dict[str, Any] = {
                "name": architecture.name or text,
                "fingerprint": architecture.fingerprint,
                "ms": found.ms,
                "low_ms": found.low_ms,
                "high_ms": found.high_ms,
                "basis": found.basis,
            }
            if explain:
                row["blocks"] = [{"name": name, "ms": ms} for name, ms in model.explain(architecture)]
            rows.append(row)
    if json:
        show_json({"target": model.target, "predictions": rows})
        return
    table = Table("network", "fingerprint", "ms", "90 % interval", "basis", title=f"Predicted on {model.target}")
    for row in rows:
        interval = f"{row['low_ms']:.3g} … {row['high_ms']:.3g}"
        table.add_row(row["name"], row["fingerprint"], f"{row['ms']:.3g}", interval, row["basis"])
    stdout.print(table)
    for row in rows:
        if explain:
            blocks = Table("part", "ms", "share", title=row["name"])
            for part in row["blocks"]:
                blocks.add_row(part["name"], f"{part['ms']:.4f}", f"{part['ms'] / row['ms']:.1%}")
            stdout.print(blocks)


@app.command()
def measure(
    network: Annotated[str, typer.Argument(metavar="ARCH|model.onnx", help="Name, file, checkpoint or ONNX model.")],
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
    """Measure a network on the device.

    Example: [bold]nas measure mobilenet_v2 --target host --ops[/]
    """
    from latency.errors import LatencyError
    from latency.settings import Effort
    from latency.store import load_model
    from latency.target import load_target
    from nas.arch import load_architecture
    from nas.errors import ExportError

    where = load_target(target)
    predicted_ms: float | None = None
    if network.endswith(".onnx"):
        try:
            model = Path(network).read_bytes()
        except OSError as error:
            raise ExportError(f"{network}: an ONNX model is needed, it cannot be read ({error.strerror})") from None
    else:
        architecture = load_architecture(
            network, width_multiplier=width_multiplier, resolution=resolution, classes=classes, channels=channels
        )
        model = _onnx(architecture, network, where.settings.precision)
        try:
            predicted_ms = load_model(where).predict_ms(architecture)
        except LatencyError as reason:
            note(f"no prediction beside it: {reason}")
    device = where.open()
    effort = Effort(processes=3, slices=12, limit_s=20.0)
    with progress_bar("measuring") as bar:
        taken = 0

        def count(index: int, part: object) -> None:
            nonlocal taken
            taken += 1
            bar(f"measuring on {where.name}", taken, max(taken, effort.processes * effort.slices))

        (timing,) = device.measure([model], settings=where.settings, effort=effort, on_slice=count)
    nodes = device.profile(model, settings=where.settings) if ops else ()
    result = {
        "target": where.name,
        "median_ms": timing.median_ms,
        "low_ms": timing.low_ms,
        "p90_ms": timing.p90_ms,
        "mad_ms": timing.mad_ms,
        "runs": timing.runs,
        "stable": timing.stable,
        "half_difference": timing.half_difference,
        "predicted_ms": predicted_ms,
        "ops": [{"name": node.name, "op": node.op, "ms": node.ms} for node in nodes],
    }
    if json:
        show_json(result)
        return
    stdout.print(
        f"{network} on {where.name}: {timing.low_ms:.4g} ms undisturbed, median {timing.median_ms:.4g}, p90 {timing.p90_ms:.4g}, "
        f"MAD {timing.mad_ms:.2g}; {timing.runs} runs, {'stable' if timing.stable else 'NOT stable'} "
        f"(halves differ by {timing.half_difference:.1%})"
        + ("" if predicted_ms is None else f"; predicted {predicted_ms:.4g} ms")
    )
    if nodes:
        total = sum(node.ms for node in nodes)
        table = Table("node", "op", "ms", "share", title="Executed nodes (profiling adds microseconds to each)")
        for node in nodes:
            table.add_row(node.name, node.op, f"{node.ms:.4f}", f"{node.ms / total:.1%}")
        stdout.print(table)


def _onnx(architecture: "Architecture", source: str, precision: "Precision") -> bytes:
    """The ONNX model of a checkpoint, or of an architecture with random weights, in the target's precision."""
    from latency.qdq import to_qdq
    from latency.stand_in import stand_in

    if source.endswith(".pt"):
        from nas.checkpoint import load_checkpoint
        from nas.deployment import onnx_model

        model = onnx_model(load_checkpoint(Path(source)))
        return to_qdq(model) if precision == "int8" else model
    from searchspace.architecture import lower

    return stand_in(lower(architecture), precision)


def _lines(path: str) -> list[Any]:
    """The architectures of a file with one JSON object a line."""
    from searchspace.architecture import Architecture
    from searchspace.errors import ArchitectureError, NasError

    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArchitectureError(f"{path}: a file of architectures is needed, it cannot be read ({error})") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(Architecture.from_text(line))
            except NasError as error:
                raise ArchitectureError(f"{path}, line {number}: {error}") from None
    return found

"""`nas profile` and `nas predict`: latency models, fitted and asked."""

import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from nas.cli.console import app, note, progress_bar, show_json, stdout
from nas.cli.options import Channels, Classes, Json, Resolution, Seed, Target, Tolerance, WidthMultiplier
from nas.cli.options import networks as networks_of
from nas.errors import StudyError

if TYPE_CHECKING:
    from latency.model import LatencyModel
    from latency.provenance import Provenance
    from latency.timing import Slice
    from nas.cli.console import Bar
    from searchspace.architecture import Architecture

FIRST = 24  # varied networks measured as they come, before those that tell most
RESOLUTION = 32  # pixels a side of a space that leaves it to the data, where nothing else says it


@app.command()
def profile(
    target: Target = "host",
    minutes: Annotated[
        float | None, typer.Option(help="Time for measuring; by default 5, or until --networks.")
    ] = None,
    networks: Annotated[int | None, typer.Option(min=1, help="Measured networks there shall be in all.")] = None,
    space: Annotated[str | None, typer.Option(help="Measure networks of this space, instead of varied ones.")] = None,
    resolution: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pixels a side: of --like; or of a space that leaves it to the data, by default the target's, or 32.",
        ),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like",
            metavar="ARCH",
            help="Measure this network, at several resolutions. Repeat it for more.",
            callback=networks_of,
        ),
    ] = None,
    width_multiplier: WidthMultiplier = 1.0,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Outputs of a space's networks, by default 10; or of --like.")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="Of the input of a space's networks, by default 3; or of --like.")
    ] = None,
    tolerance: Tolerance = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only measure a few again: does the model still hold?")
    ] = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Measure a few again and bring the model to the present speed.")
    ] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Measure networks on a device and fit its latency model; a second call goes on where the first ended.

    Example: [bold]nas profile --target host --minutes 5[/]
    """
    shape = {
        "width_multiplier": width_multiplier,
        "resolution": resolution,
        "classes": classes,
        "channels": channels,
    }
    given = typed(shape)
    if check or recalibrate:
        if any(option is not None for option in (minutes, networks, space, tolerance)) or like or given:
            raise StudyError(
                "--check and --recalibrate take no --minutes, --networks, --tolerance, --space or --like, nor options about "
                "networks: they measure a fixed few"
            )
        _renew(target, change_it=recalibrate, json=json)
        return
    from latency.profiling import EFFORT, Progress, profile_target
    from latency.samples import resized, varied_architectures
    from latency.target import load_target
    from nas.prediction import NETWORKS, space_architectures
    from searchspace.space import load_space

    if minutes is not None and not minutes > 0:
        raise StudyError(f"--minutes must be above 0, got {minutes:g}")
    if like and space is not None:
        raise StudyError("--like and --space both say what to measure: give one of them")
    if width_multiplier != 1 and not like:
        raise StudyError("--width-multiplier is of a network: give one by --like")
    if given and not like and space is None:
        raise StudyError(
            f"{' and '.join(given)} must go with --space or --like: the networks that are measured otherwise vary"
        )
    effort = EFFORT if tolerance is None else replace(EFFORT, tolerance=accepted(tolerance))
    where = load_target(target)
    where.require_modelled()
    device = where.open()
    in_order: int | None = None
    architectures: Iterator[Architecture]
    if like:
        named = [one for text in like for one in _loaded(text, shape)]
        architectures = itertools.chain.from_iterable(map(resized, named))
    elif space is None:
        architectures, in_order = varied_architectures(seed), FIRST
    else:
        in_order = NETWORKS
        side = resolution or where.resolution or RESOLUTION
        drawn_from = load_space(space).adapt(channels=channels or 3, classes=classes or 10, resolution=side)
        with device.reserve("looking at it", on_wait=waiting_for(where.name)):
            device.describe()
        architectures = space_architectures(
            drawn_from,
            nchwc_block=device.describe().nchwc_block,
            precision=where.settings.precision,
            seed=seed,
        )
    limit_s = 60 * minutes if minutes is not None else None if networks is not None or like else 300.0
    with progress_bar(f"profiling {where.name}") as bar:

        def show(state: Progress) -> None:
            what = f"measuring on {where.name}: {state.networks} networks"
            if state.wanted is not None:
                bar(what, state.done, state.wanted)
            elif state.limit_s is not None:
                bar(what, round(state.seconds), round(state.limit_s))
            else:
                bar(what, state.done, None)

        model = profile_target(
            where,
            architectures,
            networks=networks,
            limit_s=limit_s,
            in_order=in_order,
            device=device,
            effort=effort,
            on_progress=show,
            on_wait=waiting_for(where.name),
            on_saved=told_of_saving,
        )
    _show_profile(model, json=json)


def _show_profile(model: "LatencyModel", *, json: bool) -> None:
    from latency.profiling import report

    told = report(model)
    warn_of_emulation(model.target, model.provenance)
    if json:
        show_json(told)
        return
    held_out = model.held_out
    stdout.print(f"{model.target}: {told['networks']} networks, {told['device_seconds']} s of device time")
    stdout.print(
        f"held out: {held_out.within_5:.0%} within ±5 %, {held_out.within_10:.0%} within ±10 %, median error "
        f"{held_out.median_error:.1%}, 95th percentile {held_out.p95_error:.1%}, Spearman {held_out.spearman:.3f}, "
        f"Kendall {held_out.kendall:.3f} (n = {held_out.n}); noise of the measurements, half against half: median "
        f"{told['noise_median']:.1%}, 95th percentile {model.noise_p95:.1%}"
    )


def _renew(name: str, *, change_it: bool, json: bool) -> None:
    """Measure some of the model's networks again; say whether it holds, or make it hold."""
    from latency.errors import ModelError
    from latency.renewal import check_model, recalibrate
    from latency.runner import DISTURBED
    from latency.store import load_model
    from latency.target import load_target

    target = load_target(name)
    model, device, on_wait = load_model(target), target.open(), waiting_for(target.name)
    renewed = None
    with progress_bar(f"checking {target.name}") as bar, device.reserve("checking its latency model", on_wait=on_wait):
        found = check_model(model, device, on_slice=counting(bar, f"measuring on {target.name} again"), on_wait=on_wait)
        if change_it:  # before anyone else measures there
            renewed = recalibrate(model, found, target=target)
    if renewed is not None:
        _show_profile(renewed, json=json)
        return
    if json:
        keys = {
            "networks": found.networks,
            "change": found.change,
            "spread": found.spread,
            "tolerance": found.tolerance,
            "arithmetic": found.arithmetic,
        }
        show_json({"target": target.name, "holds": found.holds, **keys})
    told = (
        f"{found.networks} of its networks take {found.change:+.1%} (median; spread {found.spread:.1%}) "
        f"compared with when it was made, {found.tolerance:.1%} is allowed"
    )
    if abs(found.arithmetic) > DISTURBED - 1:
        told += f", plain arithmetic {found.arithmetic:+.0%}: the processor runs at another speed now"
    if not found.holds:
        raise ModelError(
            f"the latency model of {target.name!r} no longer holds: {told}: "
            f"run `nas profile --target {target.option} --recalibrate`, or stop what else runs on the device"
        )
    if not json:
        stdout.print(f"{target.name}: the latency model holds: {told}")


def accepted(tolerance: float) -> float:
    """The value of ``--tolerance``, if it is one."""
    if not 0 < tolerance < 1:
        raise StudyError(f"--tolerance must be above 0 and below 1, as 0.02 for 2 %, got {tolerance:g}")
    return tolerance


def told_of_saving(model: "LatencyModel") -> None:
    """Says that profiling ended early, but not for nothing."""
    note(f"a latency model of the {len(model.measurements)} networks measured so far was saved")


def waiting_for(name: str) -> "Callable[[str], None]":
    """Says that a device is taken, and by whom."""
    return lambda holder: note(f"waiting for {name}: {holder}")


def warn_of_emulation(name: str, provenance: "Provenance") -> None:
    """Says that milliseconds of a target mean nothing, where its processor is emulated."""
    if provenance.emulated:
        note(f"{name} is emulated ({provenance.cpu}): what works there works, but its milliseconds mean nothing")


def counting(bar: "Bar", what: str) -> "Callable[[int, Slice], None]":
    """Moves a bar with each slice; how many there will be depends on how soon they agree."""
    taken = 0

    def count(index: int, part: "Slice") -> None:
        nonlocal taken
        taken += 1
        bar(what, taken, None)

    return count


@app.command()
def predict(
    architectures: Annotated[
        list[str],
        typer.Argument(metavar="ARCH…", help="Names, files, checkpoints, runs, or .jsonl.", callback=networks_of),
    ],
    target: Target = "host",
    explain: Annotated[bool, typer.Option("--explain", help="Milliseconds by block and by kernel.")] = False,
    width_multiplier: WidthMultiplier = 1.0,
    resolution: Resolution = None,
    classes: Classes = None,
    channels: Channels = None,
    json: Json = False,
) -> None:
    """Predict latencies by the target's model; no device is touched. `pixel` is the phone that was profiled, else pixel6.

    Example: [bold]nas predict mobilenet_v2 mobilenet_v3_large --target host[/]
    """
    from latency.errors import UnmeasuredKernel
    from latency.published.model import PublishedModel
    from latency.store import find_predictor

    model = find_predictor(target)
    published = model if isinstance(model, PublishedModel) else None
    if not isinstance(model, PublishedModel):
        warn_of_emulation(model.target, model.provenance)
    options: dict[str, Any] = {
        "width_multiplier": width_multiplier,
        "resolution": resolution,
        "classes": classes,
        "channels": channels,
    }
    rows: list[dict[str, Any]] = []
    for text in architectures:
        for architecture in _loaded(text, options):
            try:
                found = model.predict(architecture)
            except UnmeasuredKernel as error:
                raise UnmeasuredKernel(naming(error, text, options)) from None
            row: dict[str, Any] = {
                "name": architecture.name or text,
                "fingerprint": architecture.fingerprint,
                "ms": found.ms,
                "low_ms": found.low_ms,
                "high_ms": found.high_ms,
                "basis": found.basis,
            }
            if published:
                row["doubts"] = list(published.doubts(architecture))
            if explain:
                row["blocks"] = [{"name": name, "ms": ms} for name, ms in model.explain(architecture)]
                row["kernels"] = [{"name": name, "ms": ms} for name, ms in model.by_kind(architecture)]
            rows.append(row)
    if json:
        told = {"remark": published.remark} if published else {}
        show_json({"target": model.target, "predictions": rows, **told})
        return
    table = Table("network", "fingerprint", "ms", "90 % interval", "basis", title=f"Predicted on {model.target}")
    for row in rows:
        interval = f"{row['low_ms']:.3g} … {row['high_ms']:.3g}"
        table.add_row(escape(row["name"]), row["fingerprint"], f"{row['ms']:.3g}", interval, row["basis"])
    stdout.print(table)
    if published:
        stdout.print(published.remark)
    for row in rows:
        if row.get("doubts"):
            stdout.print(f"{escape(row['name'])}: its interval is wide: {'; '.join(row['doubts'])}")
        if explain:
            for what in ("blocks", "kernels"):
                parts = Table("part", "ms", "share", title=f"{escape(row['name'])}: {what}")
                for part in row[what]:
                    parts.add_row(part["name"], f"{part['ms']:.4f}", f"{part['ms'] / row['ms']:.1%}")
                stdout.print(parts)
            first = row["kernels"][0]
            stdout.print(f"{escape(row['name'])}: most of it is {first['name']}, {first['ms'] / row['ms']:.0%}")


def naming(error: Exception, text: str, options: "Mapping[str, Any]") -> str:
    """The message of an error, in which the command that mends it names the network as it was given."""
    return str(error).replace("--like ARCH", " ".join(["--like", shlex.quote(text), *typed(options)]))


def typed(given: "Mapping[str, Any]") -> list[str]:
    """Those options that change an architecture and were given, as they are typed."""
    default = {"width_multiplier": 1.0}
    return [f"--{name.replace('_', '-')} {value}" for name, value in given.items() if value != default.get(name)]


def _loaded(text: str, options: dict[str, Any]) -> "list[Architecture]":
    """The architecture that is meant, or all of a file of them."""
    from nas.arch import load_architecture

    return _lines(text, options) if text.endswith(".jsonl") else [load_architecture(text, **options)]


def _lines(path: str, options: dict[str, Any]) -> "list[Architecture]":
    """The architectures of a file with one JSON object a line; options that change an architecture do not apply to it."""
    from searchspace.architecture import Architecture
    from searchspace.errors import ArchitectureError, NasError

    for option in typed(options):
        raise ArchitectureError(f"{option} does not apply to {path}: its architectures are complete")
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
    if not found:
        raise ArchitectureError(f"{path}: must hold at least one architecture, got none")
    return found

"""`nas show` and `nas import`: looking at an architecture, and taking published weights."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.measure import Measurement
from rich.table import Table

from nas.cli import options
from nas.cli.console import app, note, show_json, stdout
from searchspace.graph import Norm

if TYPE_CHECKING:
    from searchspace.architecture import Architecture

TEXT_COLUMNS = ("input", "operator", "activation", "", "layer")


@app.command()
def show(
    arch: Annotated[
        str,
        typer.Argument(
            metavar="ARCH", help="Name of a reference, architecture file, checkpoint or run.", callback=options.network
        ),
    ],
    other: Annotated[
        str | None, typer.Argument(metavar="[ARCH2]", help="Show what differs in this one.", callback=options.network)
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Every convolution and linear layer too.")] = False,
    width_multiplier: options.WidthMultiplier = 1.0,
    resolution: options.Resolution = None,
    classes: options.Classes = None,
    channels: options.Channels = None,
    json: options.Json = False,
) -> None:
    """Show an architecture, its cost and its layers; or what differs between two.

    Example: [bold]nas show mobilenet_v4_conv_s[/]
    """
    from nas.arch import load_architecture
    from nas.description import describe

    first, *others = (
        load_architecture(
            text, width_multiplier=width_multiplier, resolution=resolution, classes=classes, channels=channels
        )
        for text in (arch, other)
        if text is not None
    )
    if json:
        show_json(_compared(first, others[0]) if others else describe(first))
        return
    if others:
        _print_difference(first, others[0])
    else:
        _print_architecture(first)
    if layers:
        for architecture in (first, *others):
            _print_layers(describe(architecture))


@app.command("import")
def import_(
    arch: Annotated[
        str, typer.Option("--arch", metavar="ARCH", help="The reference that the weights are of, or a file.")
    ],
    weights: Annotated[
        Path, typer.Option("--weights", help="State dict of timm or torchvision: .pt, .pth or .safetensors.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="CKPT", help="The checkpoint to write.")],
    classes: Annotated[
        int | None, typer.Option(min=1, help="Outputs; another number than the weights' starts the classifier anew.")
    ] = None,
    width_multiplier: options.WidthMultiplier = 1.0,
    resolution: options.Resolution = None,
    channels: options.Channels = None,
    json: options.Json = False,
) -> None:
    """Make a checkpoint from published weights; every tensor must fit, by name and shape.

    Example: [bold]nas import --arch mobilenet_v3_small --weights mobilenetv3_small_100.safetensors -o small.pt[/]
    """
    from nas.arch import load_architecture
    from nas.checkpoint import save_checkpoint
    from nas.weights import import_weights, read_tensors

    architecture = load_architecture(arch, width_multiplier=width_multiplier, resolution=resolution, channels=channels)
    imported = import_weights(architecture, read_tensors(weights), classes=classes)
    checkpoint = imported.checkpoint
    save_checkpoint(output, checkpoint)
    if imported.new_classifier:
        note(f"the classifier starts anew with {classes} classes: train it before use")
    if json:
        show_json(
            {
                "checkpoint": output,
                "fingerprint": checkpoint.architecture.fingerprint,
                "tensors": imported.tensors,
                "library": imported.library.name,
                "new_classifier": imported.new_classifier,
            }
        )
        return
    stdout.print(
        f"{output}: {imported.tensors} tensors of {imported.library.name}, {checkpoint.architecture.classes} classes; input "
        f"{architecture.resolution} px, normalised with mean {checkpoint.data.mean} and deviation {checkpoint.data.std}"
    )


def _print_architecture(architecture: "Architecture") -> None:
    from nas.description import describe, rows

    table = _table("#", "input", "operator", "hidden", "out", "activation", "stride", "", "params", "MACs")
    for row in rows(architecture):
        table.add_row(
            row.place.removeprefix("blocks."),
            _size(row.shape.height, row.shape.channels),
            row.operator,
            row.hidden,
            row.out,
            row.activation,
            row.stride,
            row.extras,
            f"{row.params:,}",
            f"{row.macs:,}",
        )
    told = describe(architecture)
    stdout.print(
        f"{_title(architecture)}, {architecture.resolution} px × {architecture.channels}, {architecture.classes} classes"
    )
    _print_whole(table)
    stdout.print(
        f"{told['params']:,} parameters, {told['macs']:,} MACs, {_mebibytes(told['weights_bytes'])} of weights, "
        f"at most {_mebibytes(told['peak_activation_bytes'])} of activations"
    )


def _print_layers(told: dict[str, Any]) -> None:
    table = _table("layer", "in", "out", "kernel", "stride", "groups", "output", "params", "norm", "MACs")
    for layer in told["layers"]:
        numbers = (str(layer[key]) for key in ("cin", "cout", "kernel", "stride", "groups"))
        costs = (f"{layer[key]:,}" for key in ("params", "norm_params", "macs"))
        table.add_row(layer["name"], *numbers, _size(layer["out_h"], layer["cout"]), *costs)
    _print_whole(table)


def _print_difference(before: "Architecture", after: "Architecture") -> None:
    from nas.description import COSTS, changes, describe

    stdout.print(f"{_title(before)} → {_title(after)}")
    found = changes(before, after)
    for change in found:
        said = [
            f"{name} {new if old is None else old}" if name in "+-" else f"{name} {old} → {new}"
            for name, (old, new) in change.fields.items()
        ]
        stdout.print(f"{change.place:>12}  {change.kind:<10}  {', '.join(said)}")
    if not found:
        stdout.print("the same network")
    first, second = describe(before), describe(after)
    for cost in COSTS:
        stdout.print(f"{cost}: {first[cost]:,} → {second[cost]:,} ({second[cost] / first[cost] - 1:+.1%})")


def _compared(before: "Architecture", after: "Architecture") -> dict[str, Any]:
    from nas.description import changes, describe

    def plain(value: Any) -> Any:
        return asdict(value) if isinstance(value, Norm) else value

    differing = [
        {
            "place": change.place,
            "kind": change.kind,
            "fields": {name: [plain(value) for value in pair] for name, pair in change.fields.items()},
        }
        for change in changes(before, after)
    ]
    return {"before": describe(before), "after": describe(after), "changes": differing}


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right")
    return table


def _print_whole(table: Table) -> None:
    """As wide as it is, also where the terminal is narrower: cut or folded numbers could not be compared."""
    table.width = Measurement.get(stdout, stdout.options.update(width=1000), table).maximum
    stdout.print(table)


def _title(architecture: "Architecture") -> str:
    return f"{architecture.name or 'architecture'} {architecture.fingerprint}"


def _size(side: int, channels: int) -> str:
    return f"{side}²×{channels}"


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.2f} MiB"

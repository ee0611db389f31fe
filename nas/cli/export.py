"""`nas export`: a network as files to ship."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.console import app, note, progress_bar, show_json, stdout
from nas.cli.images import images_of, recorded_images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latency.target import Target
    from nas.checkpoint import Checkpoint
    from nas.data import Data

NOWHERE = "none"


@app.command()
def export(
    arch: Annotated[
        str,
        typer.Argument(metavar="ARCH", help="Checkpoint or run; or name or file of an architecture."),
    ],
    format: Annotated[  # noqa: A002
        str, typer.Option("--format", help="onnx, onnx-int8, ort, torch, pte (ExecuTorch) or tflite (LiteRT).")
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File, or folder for torch; by default named after ARCH, in this folder."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Compare and judge the file on this data's test split; onnx-int8 calibrates on it. "
            "By default the network's own, if found by its name.",
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Images per run of the exported network: a number, or any.")] = "1",
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="The same as --batch any.")] = False,
    preprocess: Annotated[
        bool, typer.Option("--preprocess", help="The file takes pixels of any size: it crops, resizes and normalises.")
    ] = False,
    max_accuracy_drop: Annotated[
        float, typer.Option(help="Validation accuracy that 8 bits may cost; layers that cost more stay in float.")
    ] = 0.01,
    min_agreement: Annotated[
        float,
        typer.Option(
            help="Share of validation images of which 8 bits must say what float32 says; layers stay in float for it."
        ),
    ] = 0.985,
    calibration_images: Annotated[
        int, typer.Option(min=1, help="Training images that 8-bit activations are scaled by.")
    ] = 256,
    measure: Annotated[
        str | None,
        typer.Option(help="Target to measure the file on, or none; by default host for onnx-int8, beside float32."),
    ] = None,
    width_multiplier: options.WidthMultiplier = 1.0,
    resolution: options.Resolution = None,
    classes: options.Classes = None,
    channels: options.Channels = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Write a deployable file, after running it beside the network it is made from, and a model card beside it.

    Example: [bold]nas export runs/train-photos-mobilenet_v4_conv_s/network.pt --format onnx-int8 --data photos/[/]
    """
    from nas.evaluation import as_trained
    from nas.shipping.card import write_card
    from nas.shipping.formats import COMPARED, SUFFIXES, Wish
    from nas.shipping.formats import export as write

    wish = Wish(
        format=format,
        batch=_batch(batch, dynamic=dynamic_batch),
        preprocessing=preprocess,
        max_drop=max_accuracy_drop,
        min_agreement=min_agreement,
        calibration_images=calibration_images,
        measured_on=_target(measure, format),
    )
    wish.require_images(given=data is not None)
    path = output or Path(options.name_of(arch) + SUFFIXES[format])
    checkpoint, trained = _checkpoint(
        options.network(arch),
        {"width_multiplier": width_multiplier, "resolution": resolution, "classes": classes, "channels": channels},
        seed,
    )
    source, found = _images(checkpoint, data, trained=trained)
    images = None if found is None else as_trained(found, checkpoint)
    whole = _whole(checkpoint, source, images=COMPARED) if source is not None and preprocess else []
    with progress_bar("exporting") as bar:
        report = write(checkpoint, path, wish, data=images, whole=whole, seed=seed, on_progress=bar)
    report["weights"] = "trained" if trained else "random"
    report["skipped"] = [] if images is None else list(images.skipped)
    cards = write_card(checkpoint, path, report)
    report["card"] = str(cards[0])
    if json:
        show_json(report)
        return
    _show(report)


def _show(report: dict[str, Any]) -> None:
    from nas.shipping.card import left_in_float

    said = ""
    if report["accuracy"] is not None:
        said = f", accuracy {report['accuracy']:.1%} on the {report['accuracy_split']} split"
    if report.get("float_accuracy") is not None:
        said += f" ({report['float_accuracy']:.1%} in float32; top-1 alike on {report['agreement']:.1%} of validation)"
    stdout.print(
        f"{report['path']}: {report['bytes']:,} bytes{said}; logits differ by at most {report['max_abs_diff']:.2g} from the "
        f"checkpoint's on {report['compared_on']}"
    )
    if whole := report.get("whole_images"):
        stdout.print(
            f"cropping and resizing by itself it says the same of {whole['agreement']:.0%} of {whole['images']} test images"
        )
    if latency := report.get("latency"):
        beside = "" if latency["float_ms"] is None else f", {latency['float_ms']:.3g} ms in float32 beside it"
        unstable = "" if latency["stable"] else " (unstable)"
        stdout.print(f"measured on {latency['target']}: {latency['ms']:.3g} ms{beside}{unstable}")
    if left := left_in_float(report):
        stdout.print(f"left in float, since 8 bits hurt there: {left}")
    stdout.print(f"model card: {Path(report['card']).with_suffix('.md')}")


def _checkpoint(arch: str, changes: dict[str, Any], seed: int) -> "tuple[Checkpoint, bool]":
    """The network to export, and whether it was trained."""
    from nas import deployment
    from nas.arch import CHECKPOINTS, load_architecture
    from nas.checkpoint import load_checkpoint
    from nas.shipping.origin import as_its_search_measured

    architecture = load_architecture(arch, **changes)
    if arch.endswith(CHECKPOINTS):
        checkpoint = load_checkpoint(Path(arch)).at(architecture.resolution)
        return as_its_search_measured(checkpoint, Path(arch)), True
    note(f"{arch} has no weights: random ones from seed {seed} are exported")
    return deployment.random_checkpoint(architecture, seed=seed), False


def _images(checkpoint: "Checkpoint", source: str | None, *, trained: bool) -> "tuple[str | None, Data | None]":
    """Images to compare and judge on: those that are given, else those that the checkpoint was trained on, if they are found."""
    if source is not None:
        return source, images_of(checkpoint, source, strict=False, seed=None)
    if found := recorded_images(checkpoint):
        note(f"compared and judged on {found[0]}, the data that the network was trained on")
        return found
    if trained:
        note(
            "compared on random images, since its data is not found here: give --data to compare and judge on real ones"
        )
    return None, None


def _whole(checkpoint: "Checkpoint", source: str, *, images: int) -> "list[NDArray[np.uint8]]":
    """Images of the test split at their own size."""
    from nas.data.loading import whole_test_images

    seed = int(checkpoint.metrics.get("seed", 0))
    return whole_test_images(source, channels=checkpoint.architecture.channels, seed=seed, images=images)


def _target(name: str | None, format: str) -> "Target | None":  # noqa: A002
    from latency.target import load_target

    if name is None:
        name = "host" if format == "onnx-int8" else NOWHERE
    return None if name == NOWHERE else load_target(name)


def _batch(text: str, *, dynamic: bool) -> int | None:
    from nas.errors import ExportError

    if text == "any" or dynamic:
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ExportError(f"--batch must be a number from 1, or any; got {text!r}")

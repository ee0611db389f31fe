"""`nas train` and `nas evaluate`: one network, from images to a checkpoint and what it is worth."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options
from nas.cli.console import app, progress_bar, show_json, stdout
from nas.cli.images import images_of, load_images

if TYPE_CHECKING:
    from nas.checkpoint import Checkpoint
    from nas.data import Data
    from nas.recipe import Recipe
    from nas.run import Run
    from searchspace.architecture import Architecture


@app.command()
def train(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="Name, architecture file or checkpoint.")],
    data: options.Data = "digits",
    epochs: Annotated[float | None, typer.Option(help="Passes through the data; by default the recipe's.")] = None,
    recipe: Annotated[str, typer.Option(help="Name of a shipped recipe (brief, full), or a YAML file.")] = "full",
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Leave a checkpoint's weights out, take its architecture only.")
    ] = False,
    width_multiplier: options.WidthMultiplier = 1.0,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side; by default the file's or the data's.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch; by default what is fastest, tried out at the start of the run.")
    ] = None,
    strict: options.Strict = False,
    seed: options.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command resumes it.")] = None,
    json: options.Json = False,
) -> None:
    """Train a network; what was interrupted goes on by the same command.

    A checkpoint's weights are the start, and its classifier begins anew if the data has other classes.

    Example: [bold]nas train mobilenet_v4_conv_s --data photos/ --resolution 96 --epochs 60[/]
    """
    import torch

    from nas.checkpoint import save_checkpoint
    from nas.evaluation import evaluate
    from nas.run import open_run
    from nas.training import train as train_network

    how = _recipe(recipe, epochs)
    images, start = _data_and_start(
        arch,
        data,
        resolution=resolution,
        width_multiplier=width_multiplier,
        scratch=from_scratch,
        strict=strict,
        seed=seed,
    )
    architecture = _architecture(start)
    request = {"architecture": architecture.fingerprint, "data": images.fingerprint, "seed": seed, **how.to_dict()}
    folder = out or Path("runs") / f"train-{images.name}-{Path(arch).stem}"
    with open_run(folder, kind="train", request=request) as run:
        torch.set_num_threads(_threads(run, architecture, how, threads))
        with progress_bar("training") as bar:
            result = train_network(start, images, how, seed=seed, state_file=run.file("state.pt"), on_progress=bar)
        judged = evaluate(result.checkpoint.network(), images.test, images)
        metrics = {**result.checkpoint.metrics, "test_accuracy": judged.accuracy, "test_loss": judged.loss}
        path = run.file("network.pt")
        save_checkpoint(path, dataclasses.replace(result.checkpoint, metrics=metrics))
        report = {
            "run": str(folder),
            "checkpoint": str(path),
            "accuracy": judged.accuracy,
            "loss": judged.loss,
            "validation_accuracy": result.accuracy,
            "validation_loss": result.loss,
            "epochs": result.images / len(images.train),
            "images": result.images,
            "seconds": result.seconds,
            "images_per_second": result.images_per_second,
            "curve": [dataclasses.asdict(look) for look in result.curve],
        }
        run.write_json("result.json", report)
    if json:
        show_json(report)
        return
    stdout.print(
        f"accuracy {judged.accuracy:.1%} on {judged.images} test images (validation: {result.accuracy:.1%}) "
        f"after {report['epochs']:.3g} epochs at {result.images_per_second:,.0f} images/s"
    )
    stdout.print(f"checkpoint: {path}")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint (.pt).")],
    data: options.Data = "digits",
    strict: options.Strict = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Draws the test split where the data has none; by default the training's."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Accuracy of a checkpoint on the test split, images normalised as in its training.

    Example: [bold]nas evaluate runs/train-photos-mobilenet_v4_conv_s/network.pt --data photos/[/]
    """
    from nas.checkpoint import load_checkpoint
    from nas.evaluation import as_trained
    from nas.evaluation import evaluate as judge

    loaded = load_checkpoint(checkpoint)
    images = as_trained(images_of(loaded, data, strict=strict, seed=seed), loaded)
    result = judge(loaded.network(), images.test, images)
    if json:
        show_json(dataclasses.asdict(result))
        return
    stdout.print(f"accuracy {result.accuracy:.2%}, loss {result.loss:.4f} on {result.images} test images")


def _recipe(source: str, epochs: float | None) -> "Recipe":
    from nas.recipe import load_recipe

    recipe = load_recipe(source)
    return recipe if epochs is None else dataclasses.replace(recipe, epochs=epochs, images=None)


def _threads(run: "Run", architecture: "Architecture", recipe: "Recipe", wanted: int | None) -> int:
    """As many as when the run was started: another number would round differently."""
    from nas.threads import fastest_threads

    kept = run.read_json("machine.json")
    if wanted is None and kept is not None:
        return int(kept["threads"])
    threads = fastest_threads(architecture, recipe) if wanted is None else wanted
    run.write_json("machine.json", {"threads": threads})
    return threads


def _data_and_start(
    arch: str,
    source: str,
    *,
    resolution: int | None,
    width_multiplier: float,
    scratch: bool,
    strict: bool,
    seed: int,
) -> "tuple[Data, Architecture | Checkpoint]":
    """Images, and the network that fits them: classes and channels are the data's, the resolution is the file's unless given."""
    from nas.arch import load_architecture
    from nas.checkpoint import load_checkpoint
    from nas.transfer import adapt
    from searchspace.references import REFERENCES

    architecture = load_architecture(arch, width_multiplier=width_multiplier)
    if arch.endswith(".pt") and not scratch:
        checkpoint = load_checkpoint(Path(arch))
        wanted = architecture.resolution if resolution is None else resolution
        images = load_images(source, resolution=wanted, channels=architecture.channels, strict=strict, seed=seed)
        return images, adapt(checkpoint, images, seed=seed)
    if resolution is None and arch not in REFERENCES:
        resolution = architecture.resolution
    images = load_images(source, resolution=resolution, channels=None, strict=strict, seed=seed)
    fitted = dataclasses.replace(
        architecture, resolution=images.resolution, classes=len(images.classes), channels=images.channels
    )
    return images, fitted


def _architecture(start: "Architecture | Checkpoint") -> "Architecture":
    from nas.checkpoint import Checkpoint

    return start.architecture if isinstance(start, Checkpoint) else start

"""`nas train` and `nas evaluate`: one network, from images to a checkpoint and what it is worth."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.console import app, note, progress_bar, show_json, stderr, stdout
from nas.cli.images import division_seed, images_of, load_images, warn_of_other_images

if TYPE_CHECKING:
    from nas.checkpoint import Checkpoint
    from nas.data import Data
    from nas.parallel import Ranks
    from nas.recipe import Recipe
    from nas.run import Run
    from nas.threads import Setup
    from nas.training import TrainingResult
    from searchspace.architecture import Architecture


@app.command()
def train(
    context: typer.Context,
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="Name, architecture file, checkpoint or run.")],
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
    teacher: options.Teacher = None,
    distill_weight: options.DistillWeight = 0.5,
    temperature: options.Temperature = 2.0,
    replicas: options.Replicas = 8,
    strict: options.Strict = False,
    seed: options.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command resumes it.")] = None,
    json: options.Json = False,
) -> None:
    """Train a network; what was interrupted goes on by the same command.

    A checkpoint's weights are the start, and its classifier begins anew if the data has other classes; images are divided as for
    its training, whatever --seed. The run keeps the best network on the validation split (network.pt) and the last one (last.pt).
    Several GPUs or processes:
    torchrun --nproc-per-node 2 -m nas train …

    Example: [bold]nas train mobilenet_v4_conv_s --data photos/ --resolution 96 --epochs 60 --teacher big.onnx[/]
    """
    import torch

    from nas.distillation import Lesson
    from nas.parallel import joined, ranks_of_environment
    from nas.training import train as train_network

    ranks = ranks_of_environment()
    stderr.quiet = not ranks.leads
    if teacher is None:
        _refuse_lesson(context)
    name, arch = options.name_of(arch), options.network(arch)
    how = _recipe(recipe, epochs)
    images, start, divided_by = _data_and_start(
        arch,
        data,
        resolution=resolution,
        width_multiplier=width_multiplier,
        scratch=from_scratch,
        strict=strict,
        seed=seed,
    )
    distillation = None
    if teacher is not None:
        lesson = Lesson(teacher=teacher, weight=distill_weight, temperature=temperature, replicas=replicas)
        distillation = lesson.distillation(str(ranks.device()))
        distillation.teacher.try_on(images)
    request = {
        "architecture": _architecture(start).fingerprint,
        "data": images.fingerprint,
        "seed": seed,
        **how.to_dict(),
        "teacher": distillation.identity if distillation else None,
        "processes": ranks.count,
    }
    folder = out or Path("runs") / f"train-{images.name}-{name}"
    with joined(ranks), _entered(ranks, folder, request) as run:
        setup = ranks.shared(_setup(run, _architecture(start), how, threads) if ranks.leads else None)
        assert setup is not None
        torch.set_num_threads(setup.threads)
        with progress_bar("training") as bar, _withdrawn_if_diverged(run):
            result = train_network(
                start,
                images,
                dataclasses.replace(how, channels_last=setup.channels_last),
                seed=seed,
                state_file=run.file("state.pt"),
                distillation=distillation,
                ranks=ranks,
                on_progress=bar,
                on_look=lambda curve: _keep_curve(run, curve) if ranks.leads else None,
            )
        if not ranks.leads:
            return
        report = _finish(run, result, images, divided_by=divided_by)
    for remark in result.notes:
        note(remark)
    if json:
        show_json(report)
        return
    stdout.print(
        f"accuracy {report['accuracy']:.1%} on {len(images.test)} test images (validation: {report['validation_accuracy']:.1%}) "
        f"after {report['epochs']:.3g} epochs at {result.images_per_second:,.0f} images/s"
    )
    stdout.print(f"checkpoint: {report['checkpoint']}")


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="Checkpoint (.pt), or a run.", callback=options.network)
    ],
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
        show_json({**dataclasses.asdict(result), "skipped": images.skipped})
        return
    stdout.print(f"accuracy {result.accuracy:.2%}, loss {result.loss:.4f} on {result.images} test images")


def _refuse_lesson(context: typer.Context) -> None:
    """Without a teacher there is nothing to say of how it teaches.

    Raises:
        TrainingError: it was said.
    """
    from nas.errors import TrainingError

    if said := options.given(context, "distill_weight", "temperature", "replicas"):
        raise TrainingError(f"{', '.join(said)} would change nothing without --teacher: give one, or leave that out")


def _recipe(source: str, epochs: float | None) -> "Recipe":
    from nas.recipe import load_recipe

    recipe = load_recipe(source)
    return recipe if epochs is None else dataclasses.replace(recipe, epochs=epochs, images=None)


@contextlib.contextmanager
def _entered(ranks: "Ranks", folder: Path, request: Mapping[str, Any]) -> "Iterator[Run]":
    """The run, held by the first process alone."""
    from nas.run import Run, open_run

    if not ranks.leads:
        yield Run(folder, "train", request)
        return
    with open_run(folder, kind="train", request=request) as run:
        yield run


@contextlib.contextmanager
def _withdrawn_if_diverged(run: "Run") -> Iterator[None]:
    """A training that cannot work leaves its folder free for a better recipe."""
    from nas.errors import Diverged

    try:
        yield
    except Diverged:
        run.withdraw("state.pt", "machine.json", "curve.json")
        raise


def _keep_curve(run: "Run", curve: tuple[Any, ...]) -> None:
    run.write_json("curve.json", {"curve": [dataclasses.asdict(look) for look in curve]})


def _finish(run: "Run", result: "TrainingResult", images: "Data", *, divided_by: int) -> dict[str, Any]:
    """Judge the best network on the test split, and keep it, the last one and what is to be told.

    Checkpoints say by which seed the images were divided, which is the start's where that is a checkpoint.
    """
    from nas.checkpoint import save_checkpoint
    from nas.evaluation import evaluate

    best, path, last = result.best, run.file("network.pt"), run.file("last.pt")
    judged = evaluate(best.network(), images.test, images)
    told = {"seed": divided_by, "test_accuracy": judged.accuracy, "test_loss": judged.loss}
    save_checkpoint(path, dataclasses.replace(best, metrics={**best.metrics, **told}))
    last_metrics = {**result.checkpoint.metrics, "seed": divided_by}
    save_checkpoint(last, dataclasses.replace(result.checkpoint, metrics=last_metrics))
    report = {
        "run": str(run.path),
        "checkpoint": str(path),
        "last": str(last),
        "accuracy": judged.accuracy,
        "loss": judged.loss,
        "validation_accuracy": best.metrics["accuracy"],
        "validation_loss": best.metrics["loss"],
        "epochs": result.images / len(images.train),
        "best_epoch": best.metrics["images"] / len(images.train),
        "images": result.images,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "curve": [dataclasses.asdict(look) for look in result.curve],
        "skipped": list(images.skipped),
    }
    run.write_json("result.json", report)
    return report


def _setup(run: "Run", architecture: "Architecture", recipe: "Recipe", threads: int | None) -> "Setup":
    """As when the run was started: another number of threads, or another layout, would round differently."""
    from nas.threads import Setup, known_setup

    kept = run.read_json("machine.json")
    if kept is not None:
        return Setup(threads or int(kept["threads"]), bool(kept["channels_last"]))
    setup = known_setup(architecture, recipe, threads=threads)
    run.write_json("machine.json", dataclasses.asdict(setup))
    return setup


def _data_and_start(
    arch: str,
    source: str,
    *,
    resolution: int | None,
    width_multiplier: float,
    scratch: bool,
    strict: bool,
    seed: int,
) -> "tuple[Data, Architecture | Checkpoint, int]":
    """Images, the network that fits them, and the seed that divides them.

    Classes and channels are the data's, the resolution is the file's unless given. A checkpoint's images are divided as for its
    training: what is held out now must not be what it was trained on.
    """
    from nas.arch import CHECKPOINTS, load_architecture
    from nas.checkpoint import load_checkpoint
    from nas.transfer import adapt
    from searchspace.references import REFERENCES

    architecture = load_architecture(arch, width_multiplier=width_multiplier)
    if arch.endswith(CHECKPOINTS) and not scratch:
        checkpoint = load_checkpoint(Path(arch))
        wanted = architecture.resolution if resolution is None else resolution
        # of imported weights it is not known what they were trained on
        divided_by = division_seed(checkpoint) if checkpoint.data.fingerprint else seed
        images = images_of(checkpoint, source, strict=strict, seed=divided_by, resolution=wanted)
        warn_of_other_images(checkpoint, images)
        return images, adapt(checkpoint, images, seed=seed), divided_by
    if resolution is None and arch not in REFERENCES:
        resolution = architecture.resolution
    images = load_images(source, resolution=resolution, channels=None, strict=strict, seed=seed)
    fitted = dataclasses.replace(
        architecture, resolution=images.resolution, classes=len(images.classes), channels=images.channels
    )
    return images, fitted, seed


def _architecture(start: "Architecture | Checkpoint") -> "Architecture":
    from nas.checkpoint import Checkpoint

    return start.architecture if isinstance(start, Checkpoint) else start

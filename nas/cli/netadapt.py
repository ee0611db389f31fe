"""`nas netadapt`: trimming a trained network until it meets a budget on a device."""

import dataclasses
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from nas.cli import options
from nas.cli.console import app, note, progress_bar, show_json, stdout
from nas.cli.images import images_of, warn_of_other_images
from nas.cli.running import MODEL_FILE, Shown, model_of, run_name, target_of_run, told_of

if TYPE_CHECKING:
    from latency.target import Target
    from nas.checkpoint import Checkpoint
    from nas.data import Data
    from nas.distillation import Distillation
    from nas.family import Family
    from nas.finishing import Outcome
    from nas.recipe import Recipe
    from nas.run import Run
    from nas.steps import Settings, Step

STEPPING = ("rule", "step", "decay", "short_images", "workers", "measure_every", "audit_every")
LONG_EPOCHS, LONG_IMAGES = 10.0, 60_000  # of the long fine-tune where no epochs are given: whichever is shorter


@app.command()
def netadapt(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Trained network (.pt), or a run.")],
    target: options.Target = "host",
    data: options.Data = "digits",
    budget_ms: Annotated[
        float | None, typer.Option(help="Milliseconds the network may take; without any limit the target's.")
    ] = None,
    budget_ratio: Annotated[float | None, typer.Option(help="Share of the start's latency it may take.")] = None,
    max_accuracy_drop: Annotated[
        float | None, typer.Option(help="The smallest network that loses no more validation accuracy than this.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="netadapt; or uniform, one width multiplier to compare with, which takes no options about steps."
        ),
    ] = "netadapt",
    rule: Annotated[
        str, typer.Option(help="What a step chooses by: accuracy (NetAdapt), or ratio to latency saved (MobileNetV3).")
    ] = "accuracy",
    importance: Annotated[str, typer.Option(help="What decides which channels go: taylor or l2.")] = "taylor",
    step: Annotated[
        str | None,
        typer.Option(help="First step's reduction: 0.5ms, or 0.025 of the start; by default for about fifteen steps."),
    ] = None,
    decay: Annotated[float, typer.Option(help="Of the reduction from step to step.")] = 0.96,
    short_images: Annotated[
        int, typer.Option(min=1, help="Images of the fine-tunes that compare hopeful proposals.")
    ] = 2000,
    epochs: Annotated[
        float | None, typer.Option(help="Of the long fine-tune; by default 10, but at most 60,000 images.")
    ] = None,
    as_many_as: Annotated[
        Path | None,
        typer.Option(
            "--images-of",
            metavar="RUN",
            help="With --method uniform, in place of --epochs: fine-tune on as many images as that trimming did in all, "
            "short fine-tunes included.",
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe of the long fine-tune: a shipped one, or a YAML file.")] = "full",
    distill: Annotated[
        float, typer.Option(help="Share of the long fine-tune's loss that the start's softened logits have.")
    ] = 0.0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Proposals fine-tuned side by side; by default one per core or card.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="That the long fine-tune computes on.")] = 1,
    measure_every: Annotated[int, typer.Option(min=1, help="Steps between measurements on the device.")] = 3,
    audit_every: Annotated[
        int,
        typer.Option(
            min=0, help="Every so many steps try all proposals to the end: what does skipping hopeless ones cost?"
        ),
    ] = 0,
    strict: options.Strict = False,
    seed: options.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command resumes it.")] = None,
    json: options.Json = False,
) -> None:
    """Trim a network, layer by layer, until it meets a latency budget on the device, and fine-tune it.

    Networks learn from the training split and are chosen by the validation split; the accuracy told is that on the test split.

    Example: [bold]nas netadapt network.pt --target host --data photos/ --budget-ratio 0.5[/]
    """
    from latency.target import load_target
    from nas.checkpoint import load_checkpoint
    from nas.distillation import Distillation
    from nas.family import Family
    from nas.neighbours import model_near
    from nas.parallel import ALONE
    from nas.recipe import load_recipe
    from nas.run import open_run
    from nas.steps import Settings
    from nas.teachers import checkpoint_teacher
    from nas.threads import laid_out
    from nas.tuning import default_workers

    source, checkpoint = options.name_of(checkpoint), options.network(checkpoint)
    if method == "uniform":
        _refuse_steps(context)
    spent = None if as_many_as is None else _spent(as_many_as, method=method, epochs=epochs)
    where, start = load_target(target), load_checkpoint(checkpoint)
    where.require_modelled()
    if budget_ms is None and budget_ratio is None and max_accuracy_drop is None:
        budget_ms = where.budget_ms
    settings = Settings(
        budget_ms=budget_ms,
        budget_ratio=budget_ratio,
        max_accuracy_drop=max_accuracy_drop,
        method=method,  # type: ignore[arg-type]  # checked there
        reduction=step,
        decay=decay,
        rule=rule,  # type: ignore[arg-type]
        importance=importance,  # type: ignore[arg-type]
        short=dataclasses.replace(load_recipe("short"), images=short_images, epochs=None),
        workers=workers or default_workers(),
        measure_every=measure_every,
        audit_every=audit_every,
        seed=seed,
    )
    distillation = None
    if distill:
        teacher = checkpoint_teacher(start, name=str(checkpoint), device=ALONE.device())
        distillation = Distillation(teacher, weight=distill)
    name = f"{method}-{source}-{run_name(target, where)}-{_limit(settings)}"
    folder = out or Path("runs") / (f"{name}-seed{seed}" if seed else name)
    where = target_of_run(target, where, folder)
    if not (folder / "step-00.json").exists():
        _refuse_what_is_met(where, start, budget_ms)
    images = _images(start, data, strict=strict, is_default=not _is_given(context, "data"))
    long = _long(recipe, epochs, spent, images)
    device = None if where.basis == "published" else where.open()
    request = {
        "start": hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:16],
        "data": images.fingerprint,
        "target": where.name,
        **{key: value for key, value in dataclasses.asdict(settings).items() if key != "workers"},
        "long": long.to_dict(),
        "distill": distill,
        "threads": threads,
    }
    with open_run(folder, kind="netadapt", request=request) as run, _said_to_go_on():
        short = laid_out(settings.short, start.architecture, run, what="short", threads=1)
        settings = dataclasses.replace(settings, short=short)
        long = laid_out(long, start.architecture, run, what="long", threads=threads)
        model = model_of(run, where, model_near, start.architecture)
        with progress_bar("trimming") as bar:
            family = Family(
                run=run,
                start=start,
                data=images,
                device=device,
                runtime=where.settings,
                model=model,
                settings=settings,
                events=Shown(bar),
                target=where.option or where.name,
            )
            with _withdrawn_if_impossible(run):
                steps, outcome = _trim(family, long, distillation, threads)
        report = {**_report(family, steps, outcome), "target": where.name, **told_of(model)}
        run.write_json("result.json", report)
        report["figures"] = _drawn(run)
        run.write_json("result.json", report)
    if json:
        show_json(report)
    else:
        _show(report)


@contextmanager
def _said_to_go_on() -> Iterator[None]:
    """Where the device fails in the middle, what becomes of the run is told beside the reason."""
    from latency.errors import DeviceError, LatencyError, UnstableMeasurement

    try:
        yield
    except (DeviceError, UnstableMeasurement) as error:
        raise LatencyError(f"{error}; what was done is kept, the same command goes on from there") from error


@contextmanager
def _withdrawn_if_impossible(run: "Run") -> Iterator[None]:
    """A request that proves impossible leaves its folder to another one, unless steps lie there already."""
    from latency.errors import UnmeasuredKernel
    from nas.errors import BudgetError

    try:
        yield
    except (BudgetError, UnmeasuredKernel):
        if not run.file("step-01.json").exists():
            run.withdraw(MODEL_FILE, "step-00.json", "step-00.pt")
        raise


def _refuse_steps(context: typer.Context) -> None:
    """A width multiplier is one step.

    Raises:
        BudgetError: an option about steps was given.
    """
    from nas.errors import BudgetError

    given = [f"--{name.replace('_', '-')}" for name in STEPPING if _is_given(context, name)]
    if given:
        raise BudgetError(f"--method uniform takes no options about steps, got {', '.join(given)}: leave them out")


def _is_given(context: typer.Context, parameter: str) -> bool:
    """Whether the command line has this option, or it was left at its default."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _refuse_what_is_met(target: "Target", start: "Checkpoint", budget_ms: float | None) -> None:
    """Nothing is measured to find out what the target's latency model is sure of already.

    Raises:
        BudgetError: the network meets the budget even at the upper end of its prediction's interval.
    """
    from latency.errors import ModelError
    from latency.store import load_predictor
    from nas.errors import BudgetError

    if budget_ms is None:
        return
    try:
        found = load_predictor(target).predict(start.architecture)
    except ModelError:  # there is none, or it does not know the network
        return
    if found.high_ms <= budget_ms:
        raise BudgetError(
            f"there is nothing to trim: the network is predicted to take {found.ms:.3g} ms on {target.name} "
            f"({found.low_ms:.3g} to {found.high_ms:.3g}), within the budget of {budget_ms:.3g} ms; give a smaller budget"
        )


def _trim(
    family: "Family", long: "Recipe", distillation: "Distillation | None", threads: int
) -> "tuple[list[Step], Outcome]":
    from nas.adaptation import netadapt as adapt
    from nas.finishing import finish
    from nas.uniform import uniform

    steps = adapt(family) if family.settings.method == "netadapt" else uniform(family)
    outcome = finish(family, steps, recipe=long, distillation=distillation, threads=threads)
    return [outcome.step if step.step == outcome.step.step else step for step in steps], outcome


def _limit(settings: "Settings") -> str:
    """The limit of a run, for its folder's name."""
    if settings.budget_ms is not None:
        return f"{settings.budget_ms:g}ms"
    ratio, drop = settings.budget_ratio, settings.max_accuracy_drop
    return f"drop{drop:g}" if ratio is None else f"{ratio:g}x"


def _images(start: "Checkpoint", source: str, *, strict: bool, is_default: bool) -> "Data":
    """Images as the network takes them, divided as they were for its training.

    Raises:
        DataError: they are not for this network; or nobody said which, and it was trained on others than the default ones.
    """
    from nas.errors import DataError
    from nas.evaluation import as_trained

    if is_default and start.data.fingerprint and start.data.name != source:
        raise DataError(
            f"--data must say which images: the network was trained on {start.data.name!r}, not on the default {source!r}"
        )
    data = images_of(start, source, strict=strict, seed=None)
    warn_of_other_images(start, data)
    return as_trained(data, start)


def _spent(run: Path, *, method: str, epochs: float | None) -> int:
    """Images that a trimming run fine-tuned on, in its short and its long fine-tunes together.

    Raises:
        BudgetError: the fine-tune that is asked for has a length already, or is no width multiplier's.
        StudyError: it is no such run, has not ended, or a version that did not count them made it.
    """
    from nas.errors import BudgetError, StudyError
    from nas.run import result_of

    if method != "uniform" or epochs is not None:
        raise BudgetError(
            "--images-of says how long a width multiplier is fine-tuned: it goes with --method uniform, not with --epochs"
        )
    result = result_of(run)
    images = result.get("images") if result.get("method") == "netadapt" else None
    counts: list[Any] = [images.get(kind) for kind in ("short", "long")] if isinstance(images, dict) else [None]
    if not all(isinstance(count, int) for count in counts):
        raise StudyError(f"{run}: --images-of needs a run of `nas netadapt` that has ended and counted its images")
    return int(sum(counts))


def _long(source: str, epochs: float | None, spent: int | None, data: "Data") -> "Recipe":
    """The recipe of the long fine-tune, at the length that was asked for or at one that a laptop can bear."""
    from nas.recipe import load_recipe

    recipe = load_recipe(source)
    if epochs is not None:
        return dataclasses.replace(recipe, epochs=epochs, images=None)
    usual = min(round(LONG_EPOCHS * len(data.train)), LONG_IMAGES)
    return dataclasses.replace(recipe, epochs=None, images=spent or usual)


def _report(family: "Family", steps: "list[Step]", outcome: "Outcome") -> dict[str, Any]:
    """The result as plain data; its steps are the whole family, the start first.

    Where networks ship in 8 bits, accuracy and milliseconds are those of the files that ship, of the start as of the result.
    """
    from nas.calibration import Calibrated

    final = family.checkpoint(outcome.step).architecture
    moved = family.moved(steps)
    low, high = Calibrated(family.model, outcome.step.factor).interval(final, moved=moved)
    counted = [step.images for step in steps if step.images is not None]
    budget_ms, start_ms, measured_ms = family.budget_ms(steps[0]), steps[0].ms, outcome.measured_ms
    accuracy, start_accuracy, delivery = outcome.accuracy, outcome.start_accuracy, outcome.delivery
    if delivery is not None:
        measured_ms, accuracy, start_accuracy = delivery.result.ms, delivery.result.accuracy, delivery.start.accuracy
        start_ms = start_ms if delivery.start.ms is None else delivery.start.ms
    ms = outcome.step.predicted_ms if measured_ms is None else measured_ms
    return {
        "run": str(family.run.path),
        "checkpoint": str(outcome.checkpoint),
        "method": family.settings.method,
        "precision": family.runtime.precision,
        "onnx": None if delivery is None else str(family.run.file(delivery.result.onnx)),
        "float_layers": 0 if delivery is None else delivery.result.float_layers,
        "accuracy": accuracy,
        "trained_accuracy": outcome.accuracy,
        "start_accuracy": start_accuracy,
        "validation_accuracy": outcome.validation_accuracy,
        "budget_ms": budget_ms,
        "within_budget": None if budget_ms is None else ms <= budget_ms,
        "start_ms": start_ms,
        "predicted_ms": outcome.step.predicted_ms,
        "low_ms": low,
        "high_ms": high,
        "measured_ms": measured_ms,
        "device_moved": moved,
        "images": {"short": sum(counted) if len(counted) == len(steps) else None, "long": outcome.images},
        "step": outcome.step.step,
        "steps": [{**dataclasses.asdict(one), "checkpoint": str(family.run.file(one.checkpoint))} for one in steps],
    }


def _drawn(run: "Run") -> list[str]:
    """The family drawn, accuracy against latency, as SVG and PNG in the run's folder."""
    from nas.errors import ReportError
    from nas.report.kinds import page_of
    from nas.report.page import write_figures

    try:
        return [str(path) for path in write_figures(page_of(run.path), run.file("figures"))]
    except ReportError as reason:
        note(f"the family is not drawn: {reason}")
        return []


def _show(report: dict[str, Any]) -> None:
    """The family as a table, and what it came to."""
    where = f"{report['target']} ({report['precision']})"
    table = Table(title=f"Networks of this run on {where}, milliseconds ({report['basis']})")
    for heading in ("step", "predicted ms", "measured ms", "validation accuracy", "change"):
        table.add_column(heading, justify="left" if heading == "change" else "right")
    for step in report["steps"]:
        measured = "" if step["measured_ms"] is None else f"{step['measured_ms']:.3g}"
        table.add_row(
            str(step["step"]), f"{step['predicted_ms']:.3g}", measured, f"{step['accuracy']:.1%}", step["what"]
        )
    stdout.print(table)
    ms, where = report["measured_ms"], "on the device"
    if ms is None:
        ms, where = report["predicted_ms"], f"as predicted ({report['low_ms']:.3g} to {report['high_ms']:.3g})"
        where += " from published latencies" if report["basis"] == "published" else ""
    stdout.print(
        f"{report['start_ms']:.3g} → {ms:.3g} ms {where} "
        f"({report['start_ms'] / ms:.2f}× faster), accuracy on the test split "
        f"{report['start_accuracy']:.1%} → {report['accuracy']:.1%}"
    )
    if report["onnx"] is not None:
        stdout.print(
            f"that is of the 8-bit files that ship, {report['float_layers']} layers of this one in float; steps are judged in "
            f"float32 ({report['trained_accuracy']:.1%} in the end) and timed with all layers in 8 bits: {report['onnx']}"
        )
    if report["within_budget"] is False:
        stdout.print(f"the budget of {report['budget_ms']:.3g} ms is not met: give a smaller one")
    images = report["images"]
    if images["short"] is not None:
        stdout.print(f"fine-tuned on {images['short']:,} images in the steps and {images['long']:,} in the end")
    if report["remark"]:
        stdout.print(report["remark"])
    stdout.print(f"checkpoint: {report['checkpoint']}")
    for path in report["figures"]:
        if path.endswith("path.svg"):
            stdout.print(f"accuracy against latency: {path}")

"""`nas search`: the main job."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich import box
from rich.table import Table

from nas.cli import options
from nas.cli.console import app, note, progress_bar, show_json, stdout
from nas.cli.images import load_images
from nas.cli.running import MODEL_FILE, Shown, model_of, run_name, target_of_run, told_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency.store import Predictor
    from latency.target import Target
    from nas.finalists import Finalist
    from nas.limits import Limit
    from nas.search import SearchResult

Choice = TypeVar("Choice", bound=str)


@app.command()
def search(
    target: options.Target = "host",
    data: options.Data = "digits",
    budget_ms: Annotated[
        float | None, typer.Option(help="Milliseconds a network may take; by default the space's median.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Candidates to train; more of them extend a search.")] = 24,
    pareto: Annotated[bool, typer.Option("--pareto", help="Search the whole front, not only its end.")] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="With --pareto: what accuracy is weighed against: ms (the default), params, weight-bytes, peak-bytes, or a "
            "target of --also. May be given several times."
        ),
    ] = None,
    sampler: Annotated[
        str, typer.Option(help="auto (evolution steered by a surrogate), or Optuna's tpe, nsga2, gp, random.")
    ] = "auto",
    stages: Annotated[
        str, typer.Option(help="coarse,fine: depths and widths first, then kinds of blocks; or one.")
    ] = "one",
    reward: Annotated[
        str, typer.Option(help="accuracy; absolute: near the budget first; soft: faster is a little better.")
    ] = "accuracy",
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another target to meet, with its budget: NAME=MS. May be given several times."),
    ] = None,
    max_params: Annotated[int | None, typer.Option(min=1, help="Parameters a network may have.")] = None,
    max_weight_bytes: Annotated[int | None, typer.Option(min=1, help="Bytes of weights it may have.")] = None,
    max_peak_bytes: Annotated[
        int | None, typer.Option(min=1, help="Bytes of activations that may be alive at once.")
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            help="Begin with this network, of the space or not, or with the best of this run (a search, a trimming, …). "
            "May be given several times."
        ),
    ] = None,
    space: Annotated[str, typer.Option(help="Name of a space, or its YAML file.")] = "default",
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side; by default the space's or the data's.")
    ] = None,
    finalists: Annotated[int, typer.Option(min=1, help="Candidates to train fully.")] = 5,
    recipe: Annotated[
        str,
        typer.Option(help="Recipe of brief training, a name or a YAML file; the rungs set its length and schedule."),
    ] = "brief",
    final_recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe of full training, a name or a YAML file; by default full, of 20 epochs but at most 40,000 images."
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Of a finalist, in place of the recipe's.")] = None,
    rungs: Annotated[
        str,
        typer.Option(
            help="Images a candidate sees on each rung, separated by commas; or epochs (0.5e), at other pixels (5000@16), with "
            "another schedule (5000:constant). The first may be a score without training: params, macs, synflow or naswot."
        ),
    ] = "5000,15000",
    score: Annotated[
        str, typer.Option(help="What rungs compare: accuracy, loss, training-loss or ema-accuracy.")
    ] = "accuracy",
    warm_start: Annotated[
        bool, typer.Option("--warm-start", help="Begin with the weights of the most similar candidate so far.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that train side by side, the cores divided among them; by default one per core or card. "
            "With 1 the same seed gives the same search.",
        ),
    ] = None,
    teacher: options.Teacher = None,
    distill_weight: options.DistillWeight = 0.5,
    temperature: options.Temperature = 2.0,
    replicas: options.Replicas = 8,
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna storage URL, or grpc://HOST:PORT of `nas proxy`; by default a file in the run."),
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the study in the storage.")] = "search",
    checkpoints: Annotated[
        str | None,
        typer.Option(
            help="Place that all machines reach, such as s3://bucket/search: there workers exchange candidates' checkpoints, "
            "and finalists go."
        ),
    ] = None,
    strict: options.Strict = False,
    seed: options.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same command resumes it.")] = None,
    json: options.Json = False,
) -> None:
    """Search for the most accurate network within a latency budget, train the best and measure them.

    The same command with more --trials extends a search, with another budget it starts from what was trained.

    Example: [bold]nas search --target host --data photos/ --budget-ms 2 --trials 60[/]
    """
    from latency.target import load_target
    from nas.costs import MS, parse_against
    from nas.distillation import Lesson
    from nas.errors import BudgetError
    from nas.fidelity import parse_ladder, parse_score
    from nas.limits import REWARDS, latency_limit, size_limits
    from nas.mirror import Mirror
    from nas.prediction import model_for
    from nas.recipe import load_recipe
    from nas.run import open_run
    from nas.sampling.candidate_sampler import SAMPLERS
    from nas.search import SearchSettings, departure, run_search
    from nas.stages import parse_stages
    from nas.starting import starting_networks
    from nas.storage import open_storage
    from searchspace.space import load_space

    where, drawn_from = load_target(target), load_space(space)
    where.require_modelled()
    budget_ms = where.budget_ms if budget_ms is None else _positive("--budget-ms", budget_ms)
    lesson = None
    if teacher is not None:
        lesson = Lesson(teacher=teacher, weight=distill_weight, temperature=temperature, replicas=replicas)
    distillation = lesson.distillation() if lesson else None
    others = other_targets(also or [])
    named = {given.rpartition("=")[0]: other.name for given, (other, _) in zip(also or [], others, strict=True)}
    weighed = parse_against(
        [named.get(name, name) for name in against or []], pareto=pareto, targets=list(named.values())
    )
    settings = SearchSettings(
        budget_ms=budget_ms,
        pareto=pareto,
        reward=one_of("--reward", reward, REWARDS),
        sampler=one_of("--sampler", sampler, SAMPLERS),
        stages=parse_stages(stages),
        trials=trials,
        finalists=finalists,
        ladder=parse_ladder(rungs),
        score=parse_score(score),
        warm_start=warm_start,
        workers=workers,
        recipe=load_recipe(recipe),
        final_recipe=None if final_recipe is None else load_recipe(final_recipe),
        final_epochs=None if epochs is None else _positive("--epochs", epochs),
        lesson=lesson,
        storage=storage,
        checkpoints=checkpoints,
        study=study,
        seed=seed,
    )
    if storage is not None:
        open_storage(storage, on_wait=note)  # whether it can be used is known before anything takes time
    if checkpoints is not None:
        Mirror(checkpoints).check()
    if resolution is not None:
        drawn_from = dataclasses.replace(drawn_from, resolution=(resolution,))
    first, *further = drawn_from.resolution or (where.resolution,)
    further += [fidelity.resolution for fidelity in settings.ladder if fidelity.resolution]
    images = load_images(data, resolution=first, strict=strict, seed=seed)
    at = {images.resolution: images}
    at |= {
        pixels: load_images(data, resolution=pixels, strict=strict, seed=seed) for pixels in further if pixels not in at
    }
    if distillation is not None:
        distillation.teacher.try_on(images)
    adapted = drawn_from.adapt(channels=images.channels, classes=len(images.classes), resolution=images.resolution)
    folder = out or Path("runs") / f"search-{images.name}-{run_name(target, where)}"
    where = target_of_run(target, where, folder)
    request = {
        "data": images.fingerprint,
        "space": adapted.fingerprint,
        "target": where.name,
        "rungs": [str(fidelity) for fidelity in settings.ladder],
        "score": settings.score,
        "warm_start": warm_start,
        "pareto": pareto,
        "against": None if weighed == (MS,) else list(weighed),
        "reward": reward,
        "recipe": departure(settings.recipe, "brief") or None,
        "final_recipe": None if settings.final_recipe is None else departure(settings.final_recipe, "full"),
        "epochs": epochs,
        "seed": seed,
        "teacher": distillation.identity if distillation else None,
    }
    with open_run(folder, kind="search", request=request) as run:
        model = model_of(run, where, model_for, adapted)
        sizes = size_limits(params=max_params, weight_bytes=max_weight_bytes, peak_bytes=max_peak_bytes)
        latencies = tuple(
            latency_limit(
                other.name, most_ms, model_of(run, other, model_for, adapted, f"latency_model-{other.name}.json")
            )
            for other, most_ms in others
        )
        settings = dataclasses.replace(
            settings,
            limits=(*sizes, *latencies),
            against=weighed,
            start=starting_networks(start or [], adapted, note=note),
        )
        run.write_json("run.json", {**(run.read_json("run.json") or {}), "limits": _limits(settings.limits)})
        with progress_bar("searching") as bar:
            try:
                result = run_search(
                    run,
                    space=adapted,
                    data=at,
                    target=where.name,
                    device=where.open() if where.basis == "measured" else None,
                    runtime=where.settings,
                    model=model,
                    settings=settings,
                    events=Shown(bar),
                )
            except BudgetError:
                if not run.file("result.json").exists():  # else another budget was found a front for
                    run.withdraw(MODEL_FILE)  # the same command with another budget may use the folder
                raise
        report = {"run": str(run.path), "study": result.study, **_report(where, model, result)}
        run.write_json("result.json", report)
    if json:
        show_json(report)
    else:
        _show(result, report)


def _report(target: "Target", model: "Predictor", result: "SearchResult") -> dict[str, Any]:
    """The result as plain data."""
    first = result.rungs[0].to_next
    best = result.best
    return {
        "target": target.name,
        "precision": target.settings.precision,
        **told_of(model),
        "budget_ms": result.budget_ms,
        "limits": _limits(result.limits),
        "against": list(result.against),
        "feasible_share": result.feasible_share,
        "redraws": result.redraws,
        "trials": {
            key: result.outcomes.get(key, 0) for key in ("complete", "pruned", "infeasible", "failed", "duplicate")
        },
        "best": None if best is None else _entry(best, result),
        "doubts": _doubts(model, result),
        "correction": dataclasses.asdict(result.correction) if result.correction else None,
        "front": [_entry(finalist, result) for finalist in result.front],
        "finalists": [_entry(finalist, result) for finalist in result.finalists],
        "rank": {"tau": first.tau, "low": first.low, "high": first.high},
        "rungs": [
            {
                "rung": rung.rung,
                "trained": rung.candidates,
                "seconds": rung.seconds,
                **dataclasses.asdict(rung.to_next),
                "full": dataclasses.asdict(rung.to_full),
                "params": dataclasses.asdict(rung.params_to_next) if rung.params_to_next else None,
            }
            for rung in result.rungs
        ],
    }


def _limits(limits: "Sequence[Limit]") -> dict[str, Any]:
    """What networks had to stay within beside the budget, named as on the command line; null: no such limit."""
    sizes = {f"max_{limit.name}": limit.most for limit in limits if limit.target is None}
    also = {limit.target: limit.most for limit in limits if limit.target is not None}
    return {"max_params": None, "max_weight_bytes": None, "max_peak_bytes": None, **sizes, "also": also}


def _entry(finalist: "Finalist", result: "SearchResult") -> dict[str, Any]:
    from searchspace.architecture import lower

    architecture, measured, budget_ms = finalist.tried.architecture, finalist.measured, result.budget_ms
    graph = lower(architecture)
    return {
        "fingerprint": architecture.fingerprint,
        "accuracy": finalist.accuracy,
        "trained_accuracy": finalist.shipped.trained_accuracy,
        "float_layers": finalist.shipped.float_layers,
        "loss": finalist.loss,
        "brief_accuracy": finalist.tried.accuracy,
        "target_ms": budget_ms,
        "predicted_ms": finalist.tried.predicted_ms,
        "low_ms": finalist.tried.low_ms,
        "high_ms": finalist.tried.high_ms,
        "measured_ms": None if measured is None else measured.low_ms,
        "stable": None if measured is None else measured.stable,
        "unmeasured": finalist.unmeasured,
        "within_budget": finalist.latency_ms <= budget_ms,
        "costs": dict(finalist.costs),
        "also": {limit.target: limit.predicted_ms(architecture) for limit in result.limits if limit.target is not None},
        "params": graph.params,
        "macs": graph.macs,
        "weights_bytes": graph.weights_bytes,
        "peak_activation_bytes": graph.peak_activation_bytes,
        "checkpoint": str(finalist.checkpoint),
        "onnx": str(finalist.shipped.onnx),
    }


def _show(result: "SearchResult", report: dict[str, Any]) -> None:
    """The front as a table."""
    from nas.costs import MS, shown, title_of

    trials = report["trials"]
    title = f"Front on {report['target']} ({report['precision']}), milliseconds ({report['basis']})"
    others = [name for name in result.against if name not in (MS, "params")]
    if result.against != (MS,):
        title += f"; accuracy against {', '.join(map(title_of, result.against))}"
    table = Table(title=title, caption="★ most accurate within the budget", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("network", no_wrap=True)
    for heading in ("accuracy", "target", "predicted", "measured", "params", "MACs", *map(title_of, others)):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in report["front"]:
        is_best = report["best"] is not None and entry["fingerprint"] == report["best"]["fingerprint"]
        table.add_row(
            f"{'★' if is_best else ' '} {entry['fingerprint']}",
            f"{entry['accuracy']:.1%}",
            f"{entry['target_ms']:.3g}",
            f"{entry['predicted_ms']:.3g}",
            _measured(entry),
            f"{entry['params'] / 1e3:,.0f} k",
            f"{entry['macs'] / 1e6:,.1f} M",
            *(shown(name, entry["costs"][name]) for name in others),
        )
    stdout.print(table)
    stdout.print(
        f"{trials['complete']} candidates trained to the last rung, {trials['pruned']} stopped earlier, "
        f"{trials['infeasible'] + report['redraws']} rejected untrained, {trials['failed']} failed"
    )
    if report["remark"]:
        stdout.print(report["remark"])
    if result.correction:
        stdout.print(str(result.correction))
    for doubt in report["doubts"]:
        stdout.print(f"predictions are rough here: {doubt}")
    stdout.print(f"checkpoints and ONNX files: {report['run']}/finalists")


def _doubts(model: "Predictor", result: "SearchResult") -> list[str]:
    """Why predictions of the finalists are rough, if they are."""
    from latency.published.model import PublishedModel

    if not isinstance(model, PublishedModel):
        return []
    told = [doubt for finalist in result.finalists for doubt in model.doubts(finalist.tried.architecture)]
    return list(dict.fromkeys(told))


def _measured(entry: dict[str, Any]) -> str:
    if entry["measured_ms"] is None:
        return "–"
    return f"{entry['measured_ms']:.3g}" + ("" if entry["stable"] else " unstable")


def other_targets(wanted: list[str]) -> "list[tuple[Target, float]]":
    """Targets and their milliseconds, each given as ``NAME=MS``."""
    from latency.target import load_target
    from nas.errors import StudyError

    found: list[tuple[Target, float]] = []
    for item in wanted:
        name, _, milliseconds = item.rpartition("=")
        try:
            most_ms = float(milliseconds)
        except ValueError:
            most_ms = math.nan
        if not name or not 0 < most_ms < math.inf:
            raise StudyError(
                f"--also must be a target and its milliseconds above 0, such as host-int8=0.5, got {item!r}"
            )
        where = load_target(name)
        where.require_modelled()
        if any(where.name == other.name for other, _ in found):
            raise StudyError(f"--also must name each target once, {where.name} was given twice: leave one of them out")
        found.append((where, most_ms))
    return found


def one_of(option: str, value: str, known: "tuple[Choice, ...]") -> "Choice":
    """The choice of that name."""
    from nas.errors import StudyError

    for choice in known:
        if choice == value:
            return choice
    raise StudyError(f"{option} must be one of {', '.join(known)}, got {value!r}")


def _positive(option: str, value: float) -> float:
    from nas.errors import StudyError

    if not 0 < value < math.inf:
        raise StudyError(f"{option} must be a finite number above 0, got {value:g}")
    return value

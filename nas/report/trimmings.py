"""The report of trimming: its path from the start to the budget, and the widths before and after."""

from typing import Any

from latency.store import Predictor
from nas.checkpoint import Checkpoint
from nas.description import changes
from nas.report import figures
from nas.report.content import Drawing, Figure, Page, Point, Section, Table
from nas.report.drawing import draw
from nas.report.reading import Folder, Json, number
from nas.report.searches import error_section

WIDTHS = ("cout", "hidden", "squeeze", "expand1x1", "expand3x3", "se", "key_dim", "value_dim", "heads")


def trimming_page(folder: Folder) -> Page:
    """Everything that `nas netadapt` left, finished or not."""
    result, about = folder.result("trimming"), folder.request
    steps = _steps(folder, result)
    model = folder.latency_model()
    basis = str(result.get("basis", model.basis if model is not None else "unknown"))
    start, end = folder.part("Networks", lambda: _ends(folder, result, steps)) or (None, None)
    final: list[Json] = [{"network": "trimmed", "fingerprint": "trimmed", **result}] if result else []
    sections = (
        *(folder.part("Path", lambda: _path(steps, basis)) or []),
        *(folder.part("Widths", lambda: _widths(start, end)) or []),
        *(folder.part("Latency model", lambda: error_section(model, final)) or []),
    )
    return Page(
        title=f"Trimming for {about.get('target', 'a device')}",
        facts=folder.part("Results", lambda: _facts(result, about, steps, basis)) or (),
        remarks=tuple(folder.remarks),
        sections=sections,
        networks=_drawn(start, end, model),
    )


def trimming_points(folder: Folder) -> list[Point]:
    """The networks of trimming's steps, the start first."""
    return [
        Point(
            str(step.get("fingerprint", "")),
            f"step {step['step']}",
            step["predicted_ms"] if step.get("measured_ms") is None else step["measured_ms"],
            step["accuracy"],
        )
        for step in _steps(folder, folder.result("trimming"))
    ]


def _steps(folder: Folder, result: Json) -> list[Json]:
    """The records of the steps: the result's, or those that lie there."""
    told = folder.objects(result, "steps")
    if steps := [step for step in told if "checkpoint" in step]:
        return steps
    if told:
        folder.remark("steps: damaged and left out")
    found = (folder.json(path.name) for path in sorted(folder.path.glob("step-[0-9][0-9].json")))
    return [step for step in found if "checkpoint" in step]


def _ends(folder: Folder, result: Json, steps: list[Json]) -> tuple[Checkpoint | None, Checkpoint | None]:
    """The network that trimming began with, and the one that it came to so far."""
    if not steps:
        return None, None
    last = result.get("checkpoint") or steps[-1]["checkpoint"]
    start, end = (folder.checkpoint(folder.moved(str(name))) for name in (steps[0]["checkpoint"], last))
    return start, end


def _drawn(start: Checkpoint | None, end: Checkpoint | None, model: Predictor | None) -> tuple[Drawing, ...]:
    """Both networks, or one where they are the same."""
    drawn = {
        checkpoint.architecture.fingerprint: draw(checkpoint.architecture, model, facts=(("which", what),))
        for checkpoint, what in ((end, "trimmed"), (start, "start"))
        if checkpoint is not None
    }
    return tuple(reversed(drawn.values()))


def _facts(result: Json, about: Json, steps: list[Json], basis: str) -> tuple[tuple[str, str], ...]:
    target = ("target", f"{about.get('target', '–')} ({basis})")
    if not result:
        return (target, ("steps so far", str(max(len(steps) - 1, 0))))
    start_ms, end_ms, where = result.get("start_ms"), result.get("measured_ms"), "on the device"
    if end_ms is None:
        published = result.get("basis") == "published"
        end_ms, where = result.get("predicted_ms"), "as predicted" + " from published latencies" * published
    if result.get("emulated"):
        where += ", an emulated processor: its milliseconds mean nothing"
    facts = [
        target,
        *([("precision", str(result["precision"]))] if "precision" in result else []),
        ("latency", f"{number(start_ms)} → {number(end_ms)} ms {where}"),
        (
            "accuracy (test split)",
            f"{number(result.get('start_accuracy'), '.1%')} → {number(result.get('accuracy'), '.1%')}",
        ),
        ("budget", f"{number(result.get('budget_ms'))} ms"),
        ("predicted", f"{number(result.get('predicted_ms'))} ms"),
        ("steps", str(max(len(steps) - 1, 0))),
        ("method", str(result.get("method", "netadapt"))),
    ]
    if start_ms and end_ms:
        facts.insert(0, ("faster", f"{start_ms / end_ms:.2f}×"))
    return tuple(facts)


def _path(steps: list[Json], basis: str) -> list[Section]:
    if not steps:
        return []
    rows: list[dict[str, Any]] = [
        {
            "step": step["step"],
            "network": step.get("fingerprint"),
            "what": step.get("what", ""),
            "ms": step["predicted_ms"] if step.get("measured_ms") is None else step["measured_ms"],
            "accuracy": step["accuracy"],
            "basis": "predicted" if step.get("measured_ms") is None else "measured",
        }
        for step in steps
    ]
    alternative = (
        f"Validation accuracy against milliseconds over {len(rows) - 1} steps, "
        f"from {rows[0]['ms']:.3g} ms at {rows[0]['accuracy']:.1%} to {rows[-1]['ms']:.3g} ms at {rows[-1]['accuracy']:.1%}."
    )
    table = Table.of(
        (
            "step",
            "change",
            f"predicted ms ({basis})",
            "measured ms",
            "accuracy",
            "proposals",
            "dominated",
            "stopped early",
        ),
        [
            (
                str(step["step"]),
                str(step.get("what", "")),
                number(step.get("predicted_ms")),
                number(step.get("measured_ms")),
                f"{step['accuracy']:.1%}",
                str(step.get("proposals", "–")),
                str(step.get("dominated", "–")),
                str(step.get("stopped", "–")),
            )
            for step in steps
        ],
    )
    text = "One network a step, judged on the validation split after its short fine-tune."
    return [Section("Path", text, Figure("path", "Accuracy against latency", alternative, figures.path(rows)), table)]


def _widths(start: Checkpoint | None, end: Checkpoint | None) -> list[Section]:
    if start is None or end is None:
        return []
    rows: list[tuple[str, int, int]] = []
    dropped = []
    for change in changes(start.architecture, end.architecture):
        if "-" in change.fields:
            dropped.append(change.place)
        for name, (before, after) in change.fields.items():
            if name in WIDTHS and isinstance(before, int) and isinstance(after, int):
                rows.append((f"{change.place} {name}", before, after))
    if not rows and not dropped:
        return []
    text = f"Dropped whole: {', '.join(dropped)}." if dropped else ""
    alternative = f"{len(rows)} widths, before and after."
    table = Table.of(
        ("where", "before", "after", "left"),
        [(part, str(before), str(after), f"{after / before:.0%}" if before else "–") for part, before, after in rows],
    )
    drawn = [{"part": part, "before": before, "after": after} for part, before, after in rows]
    figure = (
        Figure("widths", "Filters before and after", alternative, figures.before_and_after(drawn, unit="filters"))
        if rows
        else None
    )
    return [Section("Widths", text, figure, table)]

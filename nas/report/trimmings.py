"""The report of trimming: its path from the start to the budget, and the widths before and after."""

from typing import Any

from nas.checkpoint import Checkpoint
from nas.description import changes
from nas.report import figures
from nas.report.content import Figure, Page, Section, Table
from nas.report.drawing import draw
from nas.report.reading import Folder, number
from nas.report.searches import Json, error_section

WIDTHS = ("cout", "hidden", "squeeze", "expand1x1", "expand3x3", "se", "key_dim", "value_dim", "heads")


def trimming_page(folder: Folder) -> Page:
    """Everything that `nas netadapt` left, finished or not."""
    result, about = folder.json("result.json"), folder.json("run.json").get("request", {})
    steps: list[Json] = list(result.get("steps", [])) or _steps(folder)
    if not result:
        folder.remarks.append("trimming has not ended: what there is so far is shown")
    model = folder.latency_model()
    start = folder.checkpoint(folder.moved(str(steps[0]["checkpoint"]))) if steps else None
    end = folder.checkpoint(folder.moved(str(result.get("checkpoint") or steps[-1]["checkpoint"]))) if steps else None
    final = {"network": "trimmed", "fingerprint": "trimmed", **result} if result else None
    drawn = [
        draw(checkpoint.architecture, model, facts=(("which", what),))
        for checkpoint, what in ((start, "start"), (end, "trimmed"))
        if checkpoint is not None
    ]
    return Page(
        title=f"Trimming for {about.get('target', 'a device')}",
        facts=_facts(result, steps),
        remarks=tuple(folder.remarks),
        sections=(*_path(steps), *_widths(start, end), *error_section(model, [final] if final else [])),
        networks=tuple(drawn[:1] if len({one.fingerprint for one in drawn}) == 1 else drawn),
    )


def _steps(folder: Folder) -> list[Json]:
    found = (folder.json(path.name) for path in sorted(folder.path.glob("step-[0-9][0-9].json")))
    return [step for step in found if "checkpoint" in step]


def _facts(result: Json, steps: list[Json]) -> tuple[tuple[str, str], ...]:
    if not result:
        return (("steps so far", str(max(len(steps) - 1, 0))),)
    start_ms, end_ms, where = result.get("start_ms"), result.get("measured_ms"), "on the device"
    if end_ms is None:
        published = result.get("basis") == "published"
        end_ms, where = result.get("predicted_ms"), "as predicted" + " from published latencies" * published
    if result.get("emulated"):
        where += ", an emulated processor: its milliseconds mean nothing"
    facts = [
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


def _path(steps: list[Json]) -> list[Section]:
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
        ("step", "change", "predicted ms", "measured ms", "accuracy", "proposals", "dominated", "stopped early"),
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
    figure = Figure("widths", "Filters before and after", alternative, figures.widths(drawn)) if rows else None
    return [Section("Widths", text, figure, table)]

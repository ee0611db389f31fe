"""Two runs side by side: their fronts (or their trimming paths) in one figure, their results in one table."""

from nas.report import figures
from nas.report.content import Cell, Figure, Section, Table
from nas.report.reading import Folder, number
from nas.report.searches import Json


def comparison_section(first: Folder, second: Folder) -> Section:
    """What the second run is beside the first; accuracies compare only where both runs had the same data."""
    names = (first.path.name, second.path.name)
    if names[0] == names[1]:
        names = (str(first.path), str(second.path))
    rows: list[Json] = []
    for name, folder in zip(names, (first, second), strict=True):
        rows += [{"run": name, **point} for point in _points(folder)]
    different = [
        key
        for key in ("data", "target", "space")
        if _request(first).get(key) != _request(second).get(key) and key in _request(first) and key in _request(second)
    ]
    text = f"The runs differ in {', '.join(different)}: compare with care." if different else ""
    table = Table(
        ("run", "network", "ms", "accuracy"),
        tuple(
            (
                Cell(str(row["run"])),
                Cell(str(row["network"])[:8]),
                Cell(number(row["ms"])),
                Cell(f"{row['accuracy']:.1%}"),
            )
            for row in rows
        ),
    )
    alternative = f"Accuracy against milliseconds of {names[0]} and {names[1]}."
    figure = Figure("comparison", "Both runs", alternative, figures.fronts(rows)) if rows else None
    return Section(f"Compared with {names[1]}", text, figure, table)


def _request(folder: Folder) -> Json:
    request = folder.json("run.json").get("request", {})
    return request if isinstance(request, dict) else {}


def _points(folder: Folder) -> list[Json]:
    """The networks that a run ended with: a search's front, or the networks of each of trimming's steps."""
    result = folder.json("result.json")
    entries = result.get("front") or result.get("steps") or []
    return [
        {
            "network": entry.get("fingerprint", ""),
            "ms": entry["predicted_ms"] if entry.get("measured_ms") is None else entry["measured_ms"],
            "accuracy": entry["accuracy"],
        }
        for entry in entries
    ]

"""Two runs side by side: what each came to, in one table, and in one figure where they have something to draw in common."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from nas.report import figures
from nas.report.content import Cell, Figure, Point, Section, Table
from nas.report.reading import Folder, Json, number


@dataclass(frozen=True)
class Compared:
    """One of the runs: its folder, the networks it came to, and its learning curve if it trained one network."""

    folder: Folder
    points: Sequence[Point]
    curve: Sequence[Json] = ()


def comparison_section(first: Compared, second: Compared) -> Section:
    """What the second run is beside the first; accuracies compare only where both runs had the same data."""
    names = (first.folder.path.name, second.folder.path.name)
    if names[0] == names[1]:
        names = (str(first.folder.path), str(second.folder.path))
    runs = dict(zip(names, (first, second), strict=True))
    rows = [
        (
            Cell(name),
            Cell(point.network[:8], point.network),
            Cell(point.which),
            Cell(number(point.ms)),
            Cell(number(point.accuracy, ".1%")),
        )
        for name, run in runs.items()
        for point in run.points
    ]
    table = Table(("run", "network", "which", "ms", "validation accuracy"), tuple(rows))
    return Section(f"Compared with {names[1]}", _differences(first.folder, second.folder), _figure(runs), table)


def _differences(first: Folder, second: Folder) -> str:
    """What was asked for otherwise, so that results may differ for that."""
    one, other = first.request, second.request
    keys = [key for key in ("data", "target", "space") if key in one and key in other and one[key] != other[key]]
    return f"The runs differ in {', '.join(keys)}: compare with care." if keys else ""


def _figure(runs: dict[str, Compared]) -> Figure | None:
    """Accuracy against milliseconds; of two trainings, their curves."""
    both = " and ".join(runs)
    rows = [
        {"run": name, **asdict(point)} for name, run in runs.items() for point in run.points if point.ms is not None
    ]
    if rows:
        return Figure("comparison", "Both runs", f"Accuracy against milliseconds of {both}.", figures.fronts(rows))
    looks = [{**look, "network": name} for name, run in runs.items() for look in run.curve]
    if looks:
        return Figure("comparison", "Both runs", f"Accuracy while training of {both}.", figures.curves(looks))
    return None

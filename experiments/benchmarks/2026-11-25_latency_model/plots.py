"""The record's pictures; without matplotlib there are none, and the record is complete all the same."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def draw(folder: Path, rows: Sequence[Mapping[str, Any]], *, tell: Callable[[str], None]) -> None:
    """Writes ``predicted.png``, ``learning.png`` and ``staircase.png`` as far as there are results for them."""
    try:
        import matplotlib
    except ImportError:
        tell("matplotlib is not installed: no plots")
        return
    matplotlib.use("Agg")
    _predicted(folder / "predicted.png", [row for row in rows if row["result"] == "accuracy"])
    _learning(folder / "learning.png", [row for row in rows if row["result"] == "learning curve"])
    _staircase(folder / "staircase.png", [row for row in rows if row["result"] == "staircase"])


def _predicted(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 6))
    for row in rows:
        if row["networks"] in ("held out", "references") and row["points"]:
            _, measured, predicted = zip(*row["points"], strict=True)
            axes.loglog(measured, predicted, ".", label=f"{row['networks']}: {row['method']}")
    axes.axline((1, 1), (2, 2), color="grey", linewidth=0.5)
    axes.set(xlabel="measured ms", ylabel="predicted ms")
    _save(figure, axes, path)


def _learning(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    seconds = [row["device_s"] for row in rows]
    for key, label in (("within_5", "±5 %"), ("within_10", "±10 %")):
        axes.semilogx(seconds, [row[key] for row in rows], "o-", label=f"within {label}")
    axes.set(xlabel="device seconds", ylabel="share of held-out networks")
    _save(figure, axes, path)


def _staircase(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4))
    for row in rows:
        widths, measured, predicted = zip(*row["points"], strict=True)
        axes.plot(widths, measured, ".", label="measured")
        axes.plot(widths, predicted, "-", linewidth=0.8, label="predicted")
    axes.set(xlabel="width of one layer", ylabel="ms")
    _save(figure, axes, path)


def _save(figure: Any, axes: Any, path: Path) -> None:
    if axes.lines:
        axes.legend()
        figure.tight_layout()
        figure.savefig(path, dpi=150)

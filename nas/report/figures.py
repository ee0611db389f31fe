"""Figures of a report as Vega-Lite specifications: one description for the page, for SVG and for PNG.

Every function takes rows of plain data and returns a specification with the data inside. A row's `network` is a fingerprint; a
click on its mark goes to where that network is drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
COLOURS = ["#3f83d6", "#d97b29", "#3a9e74", "#b05fc0", "#c9485b", "#8a8f2f", "#2f9fb0", "#8c6d5a"]
"""Told apart on white and on black, also by most of those who see fewer colours."""
HEIGHT_PX = 320
ROW_PX = 18  # of a part in a figure of before and after
ACCURACY = {"type": "quantitative", "axis": {"format": ".1%"}, "scale": {"zero": False}}


def front(
    finalists: Sequence[Row], *, budget_ms: float | None = None, cost: str | None = None, is_line: bool = True
) -> Spec:
    """Accuracy against measured milliseconds, with the model's interval, and the budget as a line; or against another cost.

    Args:
        finalists: rows with `network, ms, predicted_ms, low_ms, high_ms, accuracy, where` ("front" or "behind it"), and `cost`.
        budget_ms: what a network might take.
        cost: what the rows' `cost` is called; None: they are drawn by their milliseconds.
        is_line: whether the front is one in this cost alone.
    """
    on_front = [row for row in finalists if row["where"] == "front"]
    x = _ms("ms") if cost is None else _amount("cost", title=cost)
    line: Spec = {
        "data": {"values": on_front},
        "mark": {"type": "line", "interpolate": "step-after", "opacity": 0.5},
        "encoding": {"x": x, "y": {**ACCURACY, "field": "accuracy", "title": "accuracy"}},
    }
    interval: Spec = {
        "mark": {"type": "rule", "opacity": 0.6},
        "encoding": {
            "x": _ms("low_ms"),
            "x2": {"field": "high_ms"},
            "y": {**ACCURACY, "field": "accuracy"},
            "color": _colour("where"),
        },
    }
    points: Spec = {
        "mark": {"type": "point", "filled": True, "size": 110, "cursor": "pointer"},
        "encoding": {
            "x": x,
            "y": {**ACCURACY, "field": "accuracy", "title": "accuracy"},
            "color": _colour("where"),
            "shape": {**_colour("where"), "legend": None},
            "tooltip": _tooltip(
                ("network", None),
                ("accuracy", ".2%"),
                *([] if cost is None else [("cost", ",.4~r")]),
                ("ms", ".4g"),
                ("predicted_ms", ".4g"),
                ("low_ms", ".4g"),
                ("high_ms", ".4g"),
            ),
        },
    }
    layers = [line] * is_line + [interval] * (cost is None) + [points]
    if budget_ms is not None:
        layers.append(
            {
                "data": {"values": [{"budget": budget_ms}]},
                "mark": {"type": "rule", "strokeDash": [5, 4]},
                "encoding": {"x": {**_ms("budget"), "title": "ms"}, "tooltip": _tooltip(("budget", ".4g"))},
            }
        )
    return _chart(finalists, {"layer": layers})


def candidates(rows: Sequence[Row], *, cost: str = "predicted ms") -> Spec:
    """Brief accuracy against what the front is against: rows with `network, cost, accuracy, outcome, rungs`."""
    return _chart(
        rows,
        {
            "mark": {"type": "point", "filled": True, "size": 55, "opacity": 0.8},
            "encoding": {
                "x": _amount("cost", title=cost),
                "y": {**ACCURACY, "field": "accuracy", "title": "accuracy after its last rung"},
                "color": _colour("outcome"),
                "shape": _colour("outcome"),
                "tooltip": _tooltip(("network", None), ("accuracy", ".2%"), ("cost", ",.4~r"), ("rungs", None)),
            },
        },
    )


def curves(rows: Sequence[Row]) -> Spec:
    """Accuracy by the images trained on: rows with `network, images, accuracy, loss`."""
    return _chart(
        rows,
        {
            "mark": {"type": "line", "point": {"size": 25}},
            "encoding": {
                "x": {
                    "field": "images",
                    "type": "quantitative",
                    "title": "images trained on",
                    "axis": {"format": "~s"},
                },
                "y": {**ACCURACY, "field": "accuracy", "title": "validation accuracy"},
                "color": _colour("network"),
                "tooltip": _tooltip(("network", None), ("images", ","), ("accuracy", ".2%"), ("loss", ".3f")),
            },
        },
    )


def agreement(rows: Sequence[Row]) -> Spec:
    """Full against brief accuracy: rows with `network, brief, accuracy`."""
    return _chart(
        rows,
        {
            "mark": {"type": "point", "filled": True, "size": 90, "cursor": "pointer"},
            "encoding": {
                "x": {**ACCURACY, "field": "brief", "title": "accuracy after brief training"},
                "y": {**ACCURACY, "field": "accuracy", "title": "accuracy after full training"},
                "tooltip": _tooltip(("network", None), ("brief", ".2%"), ("accuracy", ".2%")),
            },
        },
    )


def errors(rows: Sequence[Row]) -> Spec:
    """Predicted ÷ measured − 1 over measured milliseconds: rows with `network, ms, error, which`; lines at ±10 %."""
    lines = {
        "data": {"values": [{"at": -0.1}, {"at": 0.0}, {"at": 0.1}]},
        "mark": {"type": "rule", "strokeDash": [3, 3], "opacity": 0.6},
        "encoding": {"y": {"field": "at", "type": "quantitative"}},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 45, "opacity": 0.8},
        "encoding": {
            "x": {**_ms("ms", title="measured ms"), "scale": {"type": "log", "nice": False, "padding": 10}},
            "y": {
                "field": "error",
                "type": "quantitative",
                "title": "predicted ÷ measured − 1",
                "axis": {"format": "+.0%"},
            },
            "color": _colour("which"),
            "tooltip": _tooltip(("network", None), ("ms", ".4g"), ("error", "+.1%")),
        },
    }
    return _chart(rows, {"layer": [lines, points]})


def path(rows: Sequence[Row]) -> Spec:
    """Trimming's path, accuracy against milliseconds: rows with `step, network, ms, accuracy, what, basis`."""
    encoding = {
        "x": _ms("ms"),
        "y": {**ACCURACY, "field": "accuracy", "title": "validation accuracy"},
        "order": {"field": "step", "type": "quantitative"},
    }
    return _chart(
        rows,
        {
            "layer": [
                {"mark": {"type": "line", "opacity": 0.5}, "encoding": encoding},
                {
                    "mark": {"type": "point", "filled": True, "size": 90},
                    "encoding": {
                        **encoding,
                        "color": _colour("basis"),
                        "tooltip": _tooltip(
                            ("step", None), ("what", None), ("ms", ".4g"), ("accuracy", ".2%"), ("basis", None)
                        ),
                    },
                },
            ]
        },
    )


def before_and_after(rows: Sequence[Row], *, unit: str) -> Spec:
    """Something of each part of a network before and after: rows with `part, before, after`, in the order of the network."""
    order = [row["part"] for row in rows]
    y = {"field": "part", "type": "nominal", "sort": order, "title": None}
    spec = _chart(
        rows,
        {
            "layer": [
                {
                    "mark": {"type": "bar", "opacity": 0.3},
                    "encoding": {"y": y, "x": {"field": "before", "type": "quantitative", "title": unit}},
                },
                {
                    "mark": {"type": "bar", "height": {"band": 0.45}},
                    "encoding": {
                        "y": y,
                        "x": {"field": "after", "type": "quantitative"},
                        "tooltip": _tooltip(("part", None), ("before", None), ("after", None)),
                    },
                },
            ]
        },
    )
    spec["height"] = ROW_PX * len(rows)
    return spec


def fronts(rows: Sequence[Row]) -> Spec:
    """Several runs' fronts: rows with `run, network, ms, accuracy`."""
    encoding = {
        "x": _ms("ms"),
        "y": {**ACCURACY, "field": "accuracy", "title": "accuracy"},
        "color": _colour("run"),
        "tooltip": _tooltip(("run", None), ("network", None), ("accuracy", ".2%"), ("ms", ".4g")),
    }
    return _chart(
        rows,
        {
            "layer": [
                {"mark": {"type": "line", "interpolate": "step-after", "opacity": 0.5}, "encoding": encoding},
                {
                    "mark": {"type": "point", "filled": True, "size": 90, "cursor": "pointer"},
                    "encoding": {**encoding, "shape": {**_colour("run"), "legend": None}},
                },
            ]
        },
    )


def _chart(rows: Sequence[Row], drawn: Spec) -> Spec:
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": HEIGHT_PX,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "background": "transparent",
        "data": {"values": [dict(row) for row in rows]},
        **drawn,
        "config": {
            "range": {"category": COLOURS},
            "mark": {"color": COLOURS[0]},
            "legend": {"orient": "top", "title": None, "columns": 3, "symbolOpacity": 1, "labelLimit": 220},
            "axis": {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"},
            "view": {"stroke": None},
            "font": "system-ui, sans-serif",
        },
    }


def _ms(field: str, *, title: str = "ms") -> Spec:
    return _amount(field, title=title)


def _amount(field: str, *, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}


def _colour(field: str) -> Spec:
    return {"field": field, "type": "nominal"}


def _tooltip(*fields: tuple[str, str | None]) -> list[Spec]:
    return [
        {"field": name, "title": name.replace("_", " ")}
        | ({} if form is None else {"format": form, "type": "quantitative"})
        for name, form in fields
    ]

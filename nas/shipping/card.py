"""Model cards: what somebody who finds the file must know, as ``FILE.card.json`` for machines and ``FILE.card.md`` for people."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas.checkpoint import Checkpoint
from nas.deployment import describe
from nas.shipping.standalone import MODEL, WEIGHTS
from searchspace.architecture import lower
from searchspace.files import write_together

PACKAGES = ("torch", "onnx", "onnxruntime")


def write_card(checkpoint: Checkpoint, path: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Write both cards beside an exported file (or folder).

    Args:
        checkpoint: what was exported.
        path: the exported file or folder.
        report: what `nas export` says of it.

    Returns:
        Where the card for machines lies, and the one for people.
    """
    if path.name in ("", ".."):  # such as the folder that one is in
        path = path.resolve()
    graph = lower(checkpoint.architecture)
    card = {
        "name": checkpoint.architecture.name or checkpoint.architecture.fingerprint,
        **describe(checkpoint),
        "export": dict(report),
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in _files(path)},
        "cost": {"params": graph.params, "macs": graph.macs, "peak_activation_bytes": graph.peak_activation_bytes},
        "recipe": dict(checkpoint.recipe),
        "versions": {package: version(package) for package in PACKAGES},
    }
    machine, people = (path.with_name(f"{path.name}.card.{end}") for end in ("json", "md"))
    text = json.dumps(card, indent=1, ensure_ascii=False, default=str) + "\n"
    write_together({machine: text.encode(), people: _text(card, path).encode()})
    return machine, people


def _files(path: Path) -> list[Path]:
    return [path / MODEL, path / WEIGHTS] if path.is_dir() else [path]


def _text(card: Mapping[str, Any], path: Path) -> str:
    export, takes = card["export"], card["input"]
    classes = card["classes"]
    rows = [
        ("file", f"`{path.name}`, {export['bytes']:,} bytes"),
        ("format", export["format"]),
        ("architecture", f"`{card['architecture']}`"),
        ("parameters, MACs", f"{card['cost']['params']:,}, {card['cost']['macs']:,}"),
        ("weights", export.get("weights", "trained")),
        ("trained on", card["data"]["name"]),
        (f"accuracy on the {export.get('accuracy_split')} split", _share(export.get("accuracy"))),
        ("in float32 there", _share(export.get("float_accuracy"))),
        ("top-1 as in float32, on the validation split", _share(export.get("agreement"))),
        ("largest difference of a logit", f"{export['max_abs_diff']:.2g}"),
        ("compared on", export.get("compared_on")),
        ("cropping and resizing by itself", _whole(export.get("whole_images"))),
        ("left in float", left_in_float(export)),
        *((f"latency on {one['target']}", _latency(one)) for one in [export.get("latency")] if one),
        *_measured_before(card["metrics"]),
    ]
    return "\n".join(
        [
            f"# {card['name']}",
            "",
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in rows if value is not None),
            "",
            "## Input and output",
            "",
            _input(export, takes),
            "",
            f"Output: a logit for each of {len(classes) or 'the'} classes"
            + (f", in this order: {', '.join(classes)}." if classes else "."),
            "",
        ]
    )


def _input(export: Mapping[str, Any], takes: Mapping[str, Any]) -> str:
    if export.get("preprocessing"):
        return (
            f"`pixels`: uint8 (batch, height, width, {takes['channels']}) of any height and width; the file cuts out the centre "
            "square, resizes and normalises it."
        )
    side = takes["resolution_px"]
    return (
        f"Normalised images: float32 (batch, {takes['channels']}, {side}, {side}), (pixel / 255 − mean) / std with mean "
        f"{takes['mean']} and std {takes['std']} per channel."
    )


def left_in_float(export: Mapping[str, Any]) -> str | None:
    """Which parts of an 8-bit file are not 8-bit; None if there are none."""
    parts = [*export.get("float_layers", ()), *["what lies between these"] * export.get("float_between", False)]
    return ", ".join(parts) or None


def _share(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def _whole(tried: Mapping[str, Any] | None) -> str | None:
    if tried is None:
        return None
    return f"the same top-1 on {tried['agreement']:.0%} of {tried['images']} test images of their own size"


def _measured_before(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured of the network when it was found or trimmed."""
    if not isinstance(metrics.get("measured_ms"), float):
        return []
    return [(f"latency on {metrics.get('target')} when it was found", f"{metrics['measured_ms']:.3g} ms")]


def _latency(one: Mapping[str, Any]) -> str:
    beside = "" if one.get("float_ms") is None else f"; in float32, measured beside it: {one['float_ms']:.3g} ms"
    return f"{one['ms']:.3g} ms{'' if one['stable'] else ' (unstable)'}{beside}"

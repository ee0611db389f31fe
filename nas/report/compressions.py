"""The report of a compression: what became of the file's size and of accuracy, stage by stage and tensor by tensor."""

from nas.checkpoint import Checkpoint
from nas.report import figures
from nas.report.content import Figure, Page, Point, Section, Table
from nas.report.drawing import draw
from nas.report.reading import Folder, Json, number


def compression_page(folder: Folder) -> Page:
    """Everything that `nas compress` left, finished or not."""
    result, stages = folder.result("the compression"), _stages(folder)
    tensors = folder.objects(result, "tensors")
    sections = (
        *(folder.part("Stages", lambda: _accuracies(stages)) or []),
        *(folder.part("Sizes", lambda: _sizes(result, tensors)) or []),
        *(() if result else folder.part("Densities", lambda: _densities(folder)) or []),
    )
    return Page(
        title="Compression",
        facts=folder.part("Results", lambda: _facts(result, tensors, folder.request)) or (),
        remarks=tuple(folder.remarks),
        sections=sections,
        networks=tuple(draw(last.architecture, folder.latency_model()) for last in list(stages.values())[-1:]),
    )


def compression_points(folder: Folder) -> list[Point]:
    """The network after each stage."""
    folder.result("the compression")
    return [
        Point(stage.architecture.fingerprint, which, None, stage.metrics["accuracy"])
        for which, stage in _stages(folder).items()
    ]


def _stages(folder: Folder) -> dict[str, Checkpoint]:
    """The network after each stage that has ended, by what was done."""
    pruned = sorted(folder.path.glob("pruned-*.pt"), key=lambda path: (len(path.name), path.name))
    named = [(f"pruned, round {path.stem.removeprefix('pruned-')}", path) for path in pruned]
    named += [("weights shared", path) for path in folder.path.glob("shared.pt")]
    found = {which: folder.checkpoint(path) for which, path in named}
    return {which: checkpoint for which, checkpoint in found.items() if checkpoint is not None}


def _facts(result: Json, tensors: list[Json], request: Json) -> tuple[tuple[str, str], ...]:
    wanted = ("density asked for", number(request.get("density"), ".0%"))
    if not result:
        return (wanted,)
    pruned = [tensor for tensor in tensors if tensor["clusters"] is not None]
    weights = sum(tensor["dense_bytes"] for tensor in pruned)
    kept = sum(tensor["density"] * tensor["dense_bytes"] for tensor in pruned)
    return (
        ("smaller", f"{result['ratio']:.1f}×"),
        ("bytes", f"{result['dense_bytes']:,} → {result['bytes']:,}"),
        ("accuracy (test split)", f"{result['accuracy_before']:.2%} → {result['accuracy_after']:.2%}"),
        ("pruned, before sharing", f"{result['accuracy_pruned']:.2%}"),
        ("weights that stay", f"{kept / weights:.0%}" if weights else "–"),
        wanted,
    )


def _accuracies(stages: dict[str, Checkpoint]) -> list[Section]:
    if not stages:
        return []
    rows = [(which, number(stage.metrics.get("accuracy"), ".2%")) for which, stage in stages.items()]
    return [
        Section(
            "Stages",
            "Accuracy on the validation split after each stage's retraining.",
            table=Table.of(("stage", "validation accuracy"), rows),
        )
    ]


def _sizes(result: Json, tensors: list[Json]) -> list[Section]:
    """What each coded tensor takes, and all others together."""
    if not tensors:
        return []
    coded = [tensor for tensor in tensors if tensor["clusters"] is not None]
    plain = [tensor for tensor in tensors if tensor["clusters"] is None]
    rest = (sum(tensor["dense_bytes"] for tensor in plain), sum(tensor["bytes"] for tensor in plain))
    rows = [
        (
            tensor["name"],
            f"{tensor['dense_bytes']:,}",
            f"{tensor['density']:.0%}",
            str(tensor["clusters"]),
            *(f"{tensor['parts'][part]:,}" for part in ("codebook", "codes", "gaps")),
            f"{tensor['bytes']:,}",
        )
        for tensor in coded
    ]
    blank = ("",) * 5
    rows.append(("everything else, as it is", f"{rest[0]:,}", *blank, f"{rest[1]:,}"))
    rows.append(("header and digest", "", *blank, f"{result['other_bytes']:,}"))
    bars = [{"part": one["name"], "before": one["dense_bytes"], "after": one["bytes"]} for one in coded]
    bars.append({"part": "everything else", "before": rest[0], "after": rest[1] + result["other_bytes"]})
    alternative = f"Bytes of {len(coded)} coded tensors and of everything else, before and after."
    headings = ("tensor", "bytes before", "kept", "values", "codebook", "codes", "gaps", "bytes")
    return [
        Section(
            "Sizes",
            "Pale: as float32; full: in the file.",
            Figure("sizes", "Bytes before and after", alternative, figures.before_and_after(bars, unit="bytes")),
            Table.of(headings, rows),
        )
    ]


def _densities(folder: Folder) -> list[Section]:
    """How much of each layer is to stay, as far as it was chosen."""
    chosen = folder.json("choices.json").get("densities", {})
    asked = {f"{name}.weight": density for name, density in (folder.request.get("layer_densities") or {}).items()}
    rows = [(name, f"{density:.0%}") for name, density in {**chosen, **asked}.items()]
    return [Section("Densities", table=Table.of(("layer", "weights that stay"), rows))] if rows else []

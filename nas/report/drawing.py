"""Networks drawn stage by stage, with the milliseconds that the latency model gives to each part."""

import contextlib

from latency.errors import UnmeasuredKernel
from latency.store import Predictor
from nas.description import rows
from nas.report.content import Drawing, Part
from searchspace.architecture import Architecture, lower


def draw(architecture: Architecture, model: Predictor | None, *, facts: tuple[tuple[str, str], ...] = ()) -> Drawing:
    """The network's blocks and head in order; `facts` come before what follows from the architecture itself."""
    parts_ms: dict[str, float] = {}
    if model is not None:
        with contextlib.suppress(UnmeasuredKernel):  # drawn without milliseconds
            parts_ms = dict(model.explain(architecture))
    graph = lower(architecture)
    parts = [
        Part(
            place=row.place,
            shape=f"{row.shape.height}²×{row.shape.channels}",
            operator=f"{row.operator}{f' /{row.stride}' if row.stride not in ('', '1') else ''}",
            hidden=row.hidden,
            out=row.out,
            extras=", ".join(part for part in (row.activation, row.extras) if part),
            ms=parts_ms.get(row.place),
        )
        for row in rows(architecture)
    ]
    own = (
        ("input", f"{architecture.resolution} px × {architecture.channels}"),
        ("parameters", f"{graph.params:,}"),
        ("MACs", f"{graph.macs:,}"),
    )
    title = architecture.name or f"network {architecture.fingerprint[:8]}"
    return Drawing(architecture.fingerprint, title, (*facts, *own), tuple(parts))

"""What the search that a network was a finalist of has measured of it."""

import dataclasses
from pathlib import Path

from nas.checkpoint import Checkpoint
from nas.errors import StudyError
from nas.run import result_of


def as_its_search_measured(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The checkpoint, with `measured_ms` and `target` among its metrics where it is a finalist that was measured stably.

    They are not in its file: whoever runs a finished search again has its finalists measured again, and what was made of a
    finalist since then (a trimming, say) goes on only from the very same file.

    Args:
        checkpoint: the network.
        path: of its file.
    """
    try:
        result = result_of(path.parent.parent) if path.parent.name == "finalists" else {}
    except StudyError:  # damaged
        return checkpoint
    finalists = result.get("finalists")
    for entry in finalists if isinstance(finalists, list) else ():
        if not isinstance(entry, dict) or entry.get("fingerprint") != checkpoint.architecture.fingerprint:
            continue
        if isinstance(entry.get("measured_ms"), float) and entry.get("stable"):
            measured = {"measured_ms": entry["measured_ms"], "target": result.get("target")}
            return dataclasses.replace(checkpoint, metrics={**checkpoint.metrics, **measured})
    return checkpoint

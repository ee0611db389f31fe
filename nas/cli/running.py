"""What commands with a run have in common: showing what the library tells, and the latency model that stays with the run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nas.cli.console import Bar, note, progress_bar

if TYPE_CHECKING:
    from latency.store import Predictor
    from latency.target import Target
    from nas.run import Run

MODEL_FILE = "latency_model.json"


class Shown:
    """Shows on stderr what a search, a trimming or a compression tells."""

    def __init__(self, bar: Bar) -> None:
        self.progress = bar

    def note(self, message: str) -> None:
        """A remark."""
        note(message)


def model_of(run: "Run", target: "Target", find: "Callable[..., Predictor]", what: Any) -> "Predictor":
    """The latency model of this run: the one it was started with, so that a resumed run judges as before.

    Args:
        run: keeps it.
        target: whose model.
        find: makes one the first time, as `nas.prediction.model_for` does.
        what: it must know: the second argument of `find`.
    """
    from latency.profiling import Progress
    from latency.published.model import PublishedModel
    from nas.prediction import load_run_model

    kept = run.file(MODEL_FILE)
    if kept.exists():
        return load_run_model(kept)
    with progress_bar("profiling") as bar:

        def show(state: Progress) -> None:
            bar(f"measuring networks on {target.name} for its latency model", state.networks, state.wanted)

        model = find(target, what, note=note, on_progress=show)
    if isinstance(model, PublishedModel):
        note(model.remark)
    else:
        held_out = model.held_out
        note(
            f"latency model of {target.name}: {held_out.within_10:.0%} of {held_out.n} held-out networks within ±10 %, "
            f"median error {held_out.median_error:.1%}"
        )
    model.save(kept)
    return model

"""What commands with a run have in common: showing what the library tells, and what stays with the run: target, latency model."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.console import Bar, note, progress_bar, stderr

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

    def done(self, message: str) -> None:
        """A piece of work that is done: told where no bar shows how far everything is."""
        if not stderr.is_terminal:
            note(message)


def run_name(asked: str, target: "Target") -> str:
    """What stands for the target in a run's folder: ``pixel`` whatever that means today, so that the same command resumes."""
    from latency.target import PIXEL

    return PIXEL if asked == PIXEL else target.name


def target_of_run(asked: str, target: "Target", folder: Path) -> "Target":
    """The target of the run in a folder: where ``pixel`` was asked for, what that stood for when the run began.

    Args:
        asked: what the command was given.
        target: what that means now.
        folder: of the run, which may not be there yet.
    """
    from latency.target import PIXEL, PIXEL_STANDS_FOR, load_target, pixel_phone

    if asked != PIXEL:
        return target
    try:
        before = json.loads((folder / "run.json").read_bytes())["request"]["target"]
    except (OSError, ValueError, KeyError, TypeError):  # there is none yet, or `open_run` says what is wrong with it
        return target
    if before == target.name or before not in (PIXEL, PIXEL_STANDS_FOR):
        return target
    if before == PIXEL_STANDS_FOR:
        note(
            f"{folder} was begun for {PIXEL_STANDS_FOR}, without a phone, and goes on so; to use the phone that is attached "
            "now, begin another run with --out"
        )
        return load_target(PIXEL_STANDS_FOR)
    note(f"{folder} was begun for an attached Pixel phone, and goes on with its latency model without one")
    return pixel_phone()


def model_of(
    run: "Run", target: "Target", find: "Callable[..., Predictor]", what: Any, name: str = MODEL_FILE
) -> "Predictor":
    """The latency model of this run: the one it was started with, so that a resumed run judges as before.

    What it is worth is told, also of one that was kept.

    Args:
        run: keeps it.
        target: whose model.
        find: makes one the first time, as `nas.prediction.model_for` does.
        what: it must know: the second argument of `find`.
        name: of its file in the run.
    """
    from latency.profiling import Progress
    from latency.published.model import PublishedModel
    from nas.cli.latency import warn_of_emulation
    from nas.prediction import load_run_model

    kept = run.file(name)
    is_new = not kept.exists()
    if is_new:
        with progress_bar("profiling") as bar:

            def show(state: Progress) -> None:
                bar(f"measuring networks on {target.name} for its latency model", state.done, state.wanted)

            model = find(target, what, note=note, on_progress=show)
    else:
        model = load_run_model(kept)
    if isinstance(model, PublishedModel):
        note(model.remark)
    else:
        model = dataclasses.replace(model, option=target.option)
        held_out = model.held_out
        note(
            f"latency model of {target.name}, measured: {held_out.within_10:.0%} of {held_out.n} held-out networks within "
            f"±10 %, median error {held_out.median_error:.1%}"
        )
        warn_of_emulation(target.name, model.provenance)
    if is_new:
        model.save(kept)
    return model


def told_of(model: "Predictor") -> dict[str, Any]:
    """What a result says of the latency model it rests on: its basis, what published figures are worth, emulated processors."""
    from latency.published.model import PublishedModel

    if isinstance(model, PublishedModel):
        return {"basis": model.basis, "remark": model.remark, "emulated": False}
    return {"basis": model.basis, "remark": None, "emulated": model.provenance.emulated}

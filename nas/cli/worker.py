"""`nas worker`: joins a search's study from another process or machine."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options
from nas.cli.console import app, note, progress_bar, show_json, stdout
from nas.cli.images import load_images
from nas.cli.running import Shown

if TYPE_CHECKING:
    from nas.data import Data
    from nas.outcomes import Progress


@app.command()
def worker(
    storage: Annotated[
        str,
        typer.Option(
            help="Storage of the search, such as postgresql://nas@host/nas, or grpc://HOST:PORT of `nas proxy`."
        ),
    ],
    study: Annotated[str, typer.Option(help="Name of the study in it.")] = "search",
    data: options.Data = "digits",
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Leave after training so many; by default when the study has all it wants."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of checkpoints; by default the search's where it can be reached, else one of its own."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Cores that this worker computes on.")] = 1,
    device: Annotated[
        str | None,
        typer.Option(help="Where it computes, such as cuda:1 or cpu; by default the first card, else the CPU."),
    ] = None,
    strict: options.Strict = False,
    json: options.Json = False,
) -> None:
    """Work on a search's study, from any machine that reaches its storage and has the same images.

    What is searched is read from the study; `nas search --storage URL` makes it. Asked to end (SIGTERM), it gives the candidate
    in hand back to the others. It computes on one core, or on a card: start one for each that is to be used. Where checkpoints
    lie on a shared path, or the search has [bold]--checkpoints[/], the next one goes on from them.

    Example: [bold]nas worker --storage postgresql://nas@host/nas --study search --data photos/[/]
    """
    import torch

    from nas.claims import worker_name
    from nas.errors import StudyError
    from nas.following import Following
    from nas.joining import wanted, work
    from nas.outcomes import count_outcomes
    from nas.plan import join, others
    from nas.storage import failures_told

    try:
        if device is not None:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise StudyError(f"--device must be one that torch can use here, got {device!r} ({reason})") from None
    torch.set_num_threads(threads)

    def load(pixels: int, seed: int) -> "Data":
        return load_images(data, resolution=pixels, strict=strict, seed=seed)

    joined = join(storage, study, load, out=out, on_wait=note)
    joined = dataclasses.replace(joined, trainer=dataclasses.replace(joined.trainer, device=device))
    opened = joined.open(note)
    note(
        f"joined study {opened.study_name!r}: {joined.trials} candidates wanted, checkpoints in {joined.trainer.folder}"
    )
    with progress_bar("working") as bar:
        following = Following(Shown(bar).done, worker=worker_name())

        def tell(state: "Progress") -> None:
            following(state)
            best = "" if state.best is None else f", best {state.best:.1%}"
            bar(f"candidates trained by all{best}", state.trained, state.wanted)

        try:
            trained = work(joined, here=trials, note=note, on_wait=note, on_progress=tell)
        except KeyboardInterrupt:
            note(f"left study {opened.study_name!r}: the candidate in hand is queued again for the others")
            raise
    with failures_told():
        outcomes, total = count_outcomes(opened), wanted(opened, joined.trials)
    if not trained and (elsewhere := others(opened)):
        note(
            f"study {opened.study_name!r} needs no candidates; the search goes on with other limits as study "
            f"{', '.join(elsewhere)}: give it as --study"
        )
    counts = {key: outcomes.get(key, 0) for key in ("complete", "pruned", "infeasible", "failed", "duplicate")}
    if json:
        show_json(
            {"study": opened.study_name, "trained": trained, "trials": counts, "folder": str(joined.trainer.folder)}
        )
    else:
        stdout.print(
            f"trained {trained} candidates here; the study has {counts['complete']} trained to the last rung, "
            f"{counts['pruned']} stopped earlier, {counts['failed']} failed, of {total} wanted"
        )

"""Images for a command: read with a progress bar, and what is odd about them told on stderr."""

from typing import TYPE_CHECKING

from nas.cli.console import note, progress_bar

if TYPE_CHECKING:
    from nas.checkpoint import Checkpoint
    from nas.data import Data


def load_images(
    source: str, *, resolution: int | None, channels: int | None = None, strict: bool = False, seed: int = 0
) -> "Data":
    """What `--data` names; arguments and errors are those of `nas.data.load_data`."""
    from nas.data import load_data

    with progress_bar("reading images") as bar:
        data = load_data(source, resolution=resolution, channels=channels, strict=strict, seed=seed, progress=bar)
    for remark in data.notes:
        note(remark)
    if data.skipped:
        note(f"damaged images left out: {len(data.skipped)}, the first {data.skipped[0]}")
    return data


def images_of(checkpoint: "Checkpoint", source: str, *, strict: bool, seed: int | None) -> "Data":
    """Images as the checkpoint's network takes them, divided as for its training (or by another seed)."""
    drawn_by = checkpoint.metrics.get("seed", 0) if seed is None else seed
    architecture = checkpoint.architecture
    return load_images(
        source, resolution=architecture.resolution, channels=architecture.channels, strict=strict, seed=int(drawn_by)
    )

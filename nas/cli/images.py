"""Images for a command: read with a progress bar, and what is odd about them told on stderr."""

from typing import TYPE_CHECKING

from nas.cli.console import note, progress_bar

if TYPE_CHECKING:
    from nas.checkpoint import Checkpoint
    from nas.data import Data

NAMED = 10  # damaged images, on stderr; a result has all of them


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
        named = "; ".join(data.skipped[:NAMED])
        further = f"; and {len(data.skipped) - NAMED:,} more" if len(data.skipped) > NAMED else ""
        note(f"damaged images left out: {len(data.skipped):,}: {named}{further}")
    return data


def images_of(
    checkpoint: "Checkpoint", source: str, *, strict: bool, seed: int | None, resolution: int | None = None
) -> "Data":
    """Images as the checkpoint's network takes them, divided as for its training; or at another resolution, by another seed."""
    architecture = checkpoint.architecture
    return load_images(
        source,
        resolution=resolution or architecture.resolution,
        channels=architecture.channels,
        strict=strict,
        seed=division_seed(checkpoint) if seed is None else seed,
    )


def division_seed(checkpoint: "Checkpoint") -> int:
    """What drew the splits of the data that the checkpoint was trained on."""
    return int(checkpoint.metrics.get("seed", 0))


def warn_of_other_images(checkpoint: "Checkpoint", data: "Data") -> None:
    """Say so where images may be held out now that the checkpoint's network was trained on."""
    known = checkpoint.data.fingerprint
    if known and known != data.fingerprint and checkpoint.architecture.resolution == data.resolution:
        note(
            "the network was trained on other images, or on these divided otherwise: some held out here it may have seen"
        )

"""Images for a command: read with a progress bar, and what is odd about them told on stderr."""

import contextlib
from pathlib import Path
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


def recorded_images(checkpoint: "Checkpoint") -> "tuple[str, Data] | None":
    """The very images that the checkpoint was trained on, with their name; None where they are not found.

    They are looked for by the name that the checkpoint has of them: `digits`, or a folder or file in the working directory.
    """
    from nas.data import load_data
    from searchspace.errors import NasError

    name, architecture = checkpoint.data.name, checkpoint.architecture
    if not checkpoint.data.fingerprint or Path(name).name != name:
        return None
    files = [f"{name}{suffix}" for suffix in ("", ".npz", ".parquet", ".tar")]
    for source in ["digits"] if name == "digits" else [file for file in files if Path(file).exists()]:
        with contextlib.suppress(NasError), progress_bar("reading images") as bar:  # what is called so may be anything
            data = load_data(
                source,
                resolution=architecture.resolution,
                channels=architecture.channels,
                seed=division_seed(checkpoint),
                progress=bar,
            )
            if data.fingerprint == checkpoint.data.fingerprint:
                return source, data
    return None


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

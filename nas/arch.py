"""What a command line means by ARCH: a reference's name, an architecture file, or a checkpoint."""

import dataclasses
from pathlib import Path

from searchspace.architecture import Architecture
from searchspace.errors import ArchitectureError, NasError
from searchspace.references import REFERENCES, reference

FILES = (".json", ".yaml", ".yml")
CHECKPOINTS = (".pt", ".nasz")  # the second is a compressed network


def load_architecture(
    text: str,
    *,
    width_multiplier: float = 1.0,
    resolution: int | None = None,
    classes: int | None = None,
    channels: int | None = None,
) -> Architecture:
    """The architecture that `text` names. Only a checkpoint makes torch load.

    Args:
        text: one of `searchspace.references.REFERENCES`, or the path of a ``.json``, ``.yaml`` or ``.pt`` file.
        width_multiplier: α of a reference; files have absolute widths and take none.
        resolution: side of the input in pixels; None: what the architecture says.
        classes: outputs; None: what the architecture says. A checkpoint's are its weights'.
        channels: of the input; None: what the architecture says. A checkpoint's are its weights'.

    Raises:
        NasError: there is no such reference or file, the file is damaged, or a setting does not apply to it.
    """
    path = Path(text)
    scaling = None if width_multiplier == 1 else width_multiplier
    if path.suffix in FILES:
        _refuse(text, "a file's widths are absolute", width_multiplier=scaling)
        named = _read(path)
    elif path.suffix in CHECKPOINTS:
        _refuse(
            text,
            "a checkpoint's are its weights'",
            width_multiplier=scaling,
            classes=classes,
            channels=channels,
        )
        from nas.checkpoint import load_checkpoint

        named = load_checkpoint(path).architecture
    else:
        named = _reference(text, width_multiplier)
    wanted = {"resolution": resolution, "classes": classes, "channels": channels}
    return dataclasses.replace(named, **{key: value for key, value in wanted.items() if value is not None})  # type: ignore[arg-type]


def _reference(name: str, width_multiplier: float) -> Architecture:
    if name not in REFERENCES and Path(name).exists():
        raise ArchitectureError(f"{name}: an architecture file must end in {', '.join((*FILES, *CHECKPOINTS))}")
    return reference(name, width_multiplier=width_multiplier)


def _read(path: Path) -> Architecture:
    try:
        text = path.read_text()
    except OSError as error:
        reason = "is a folder" if path.is_dir() else error.strerror
        raise ArchitectureError(f"{path}: an architecture file is needed, got none ({reason})") from error
    except UnicodeDecodeError as error:
        raise ArchitectureError(f"{path}: an architecture file is text, got something else") from error
    try:
        found = Architecture.from_text(text)
    except NasError as error:
        raise ArchitectureError(f"{path}: {error}") from error
    return found if found.name else dataclasses.replace(found, name=path.stem)


def _refuse(text: str, why: str, **settings: float | None) -> None:
    for name, value in settings.items():
        if value is not None:
            raise ArchitectureError(f"--{name.replace('_', '-')} does not apply to {text}: {why}")

"""Writing files so that a reader, or a killed writer, never leaves half of one."""

import os
import tempfile
from pathlib import Path

from searchspace.errors import NasError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path` under a temporary name, flush it to disk, then rename it to `path`.

    Parent folders are made. Whatever goes wrong (a full disk, a folder in the way), `path` keeps what it held before and
    no temporary file stays.

    Raises:
        NasError: the file cannot be written; the message names the path and the system's reason.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise NasError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's file mode mask (mkstemp makes private files; ours shall be as readable as any other)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask

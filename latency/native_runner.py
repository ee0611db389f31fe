"""Jobs for the runner in C (``native/runner.c``), which takes lines of plain text where the one in Python takes JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latency.errors import DeviceError


def source_folder() -> Path:
    """Where the runner's C sources lie: ``runner.c`` and its headers."""
    return Path(__file__).parent / "native"


def job_files(job: Mapping[str, Any]) -> dict[str, bytes]:
    """The files that a job for `latency.runner` becomes for the runner in C: ``job.txt``.

    Raises:
        DeviceError: an input's name does not fit into a line.
    """
    settings: Mapping[str, Any] = job.get("settings", {})
    lines = [f"mode {job['mode']}"]
    for key in ("provider", "threads", "graph_level", "affinity"):
        if key in settings:
            lines.append(f"{key} {_word(settings[key])}")
    lines += [f"{key} {job['effort'][key]}" for key in ("slices", "tolerance", "limit_s") if "effort" in job]
    lines += [f"{key} {job[key]}" for key in ("seed", "runs") if key in job]
    lines += [f"model {name}" for name in job.get("models", ())]
    for one in job.get("inputs", ()):
        if "\n" in one["name"]:
            raise DeviceError(f"an input's name must be one line, got {one['name']!r}")
        shape = ",".join(map(str, one["shape"])) or "-"
        lines.append(f"input {one['dtype']} {shape} {one['file']} {one['name']}")
    return {"job.txt": ("\n".join(lines) + "\n").encode()}


def _word(value: str | int | Sequence[int]) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

"""Writing a record of an experiment: what was run, on what, and every result, one JSON object a line."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from latency.runner import cpu_facts

PACKAGES = ("torch", "onnxruntime", "onnx", "optuna", "numpy", "scikit-learn")


def surroundings() -> dict[str, Any]:
    """The first line of a record: command, date, machine, load, versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "command": " ".join([Path(sys.executable).name, os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_facts()[0],
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


def write_record(path: Path, results: Iterable[Mapping[str, Any]]) -> None:
    """Write the surroundings and `results` to a ``.jsonl`` file."""
    path.write_text("".join(json.dumps(line) + "\n" for line in [surroundings(), *results]))

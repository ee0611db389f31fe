"""Where fitted latency models lie, and finding the one of a target."""

import hashlib
import json
import os
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from latency import runner
from latency.errors import ModelError
from latency.model import LatencyModel, require_equal
from latency.provenance import Provenance
from latency.published.model import PublishedModel, shipped_model
from latency.settings import RuntimeSettings
from latency.target import PIXEL, PIXEL_STANDS_FOR, Target, load_target, pixel_phone

Predictor = LatencyModel | PublishedModel


def models_folder() -> Path:
    """The user's folder for latency models: ``pocketnas/latency`` below the data folder of the desktop standard."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pocketnas" / "latency"


def model_path(target: str, provenance: Provenance, settings: RuntimeSettings, *, folder: Path | None = None) -> Path:
    """The file of a target's model; another device, runtime or way of running has another one."""
    key = json.dumps([provenance.key, settings.as_json()], sort_keys=True)
    return (folder or models_folder()) / f"{target}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"


def load_model(target: Target, *, folder: Path | None = None) -> LatencyModel:
    """The newest measured model of a target, without touching its device. For the host it must be this machine's, as it is now.

    Raises:
        ModelError: there is none, or it was measured elsewhere or with other settings; the message says how to make one.
        TargetError: there cannot be one.
    """
    if target.basis == "published":
        raise ModelError(f"target {target.name!r} is known from published latencies: nothing was measured on it")
    target.require_modelled()
    option = target.option or target.name
    found = _files(target.name, folder or models_folder())
    if not found:
        raise ModelError(f"target {target.name!r} has no latency model yet: run `nas profile --target {option}`")
    refused: ModelError | None = None
    for path in found:
        try:
            model = LatencyModel.load(path, remedy=f"run `nas profile --target {option}`")
            require_equal(option, {"target": target.name}, {"target": model.target})
            require_equal(option, target.settings.as_json(), model.settings.as_json())
            if target.device == "host":
                cpu, _ = runner.cpu_facts()
                here = {"cpu": cpu, "runtime": version("onnxruntime")}
                require_equal(option, here, model.provenance.key)
        except ModelError as error:
            refused = refused or error
        else:
            return replace(model, option=option)
    assert refused is not None
    raise refused


def _files(target: str, folder: Path) -> list[Path]:
    """The files that `model_path` names for a target, the newest first; one whose name begins alike has others."""
    named = re.compile(re.escape(target) + r"-[0-9a-f]{12}\.json")
    found = [path for path in folder.glob("*.json") if named.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def load_predictor(target: Target, *, folder: Path | None = None) -> Predictor:
    """What predicts a target's latencies: the newest measured model, or the shipped one of published latencies.

    Raises:
        ModelError: there is none; the message says how to make one.
    """
    return shipped_model(target.name) if target.basis == "published" else load_model(target, folder=folder)


def find_predictor(name_or_path: str, *, folder: Path | None = None) -> Predictor:
    """What predicts the latencies of the target with a name, or in a file, as `load_predictor` does; no device is asked anything.

    So ``pixel`` is the phone that was profiled by this name, attached or not, and what it stands for where none was.

    Raises:
        TargetError: there is no such target.
        ModelError: it has no model; the message says how to make one.
    """
    if name_or_path == PIXEL:
        try:
            return load_model(pixel_phone(), folder=folder)
        except ModelError:
            name_or_path = PIXEL_STANDS_FOR
    return load_predictor(load_target(name_or_path), folder=folder)


def read_predictor(path: Path, *, remedy: str = "profile the target again") -> Predictor:
    """The model in a file that `LatencyModel.save` or `PublishedModel.save` wrote.

    Args:
        path: of the file.
        remedy: what to do about a file that cannot be used, for the message.

    Raises:
        ModelError: there is none, it is damaged, or of another format.
    """
    try:
        plain = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as a latency model ({error}): {remedy}") from error
    if isinstance(plain, dict) and plain.get("basis") == "published":
        return PublishedModel.from_json(plain, str(path))
    return LatencyModel.load(path, remedy=remedy)

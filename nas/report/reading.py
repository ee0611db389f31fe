"""Reading a run's folder for its report: what is there is told, what is missing or damaged is remarked, nothing is changed."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latency.store import Predictor, read_predictor
from nas.checkpoint import Checkpoint, load_checkpoint
from nas.errors import ReportError
from searchspace.errors import NasError


@dataclass(frozen=True)
class Folder:
    """A run's folder being read; `remarks` grows with everything that could not be."""

    path: Path
    remarks: list[str] = field(default_factory=list)

    def json(self, name: str) -> dict[str, Any]:
        """An object from a JSON file, empty where the file is missing or damaged."""
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict):
            self.remarks.append(f"{name} is damaged and left out")
            return {}
        return content

    def checkpoint(self, path: Path) -> Checkpoint | None:
        """A checkpoint, None where it is missing or damaged."""
        try:
            return load_checkpoint(path)
        except NasError as error:
            self.remarks.append(f"a network is left out: {error}")
            return None

    def latency_model(self) -> Predictor | None:
        """The model by which the run judged, None where it is missing or damaged."""
        path = self.path / "latency_model.json"
        if not path.exists():
            return None
        try:
            return read_predictor(path)
        except NasError as error:
            self.remarks.append(f"the latency model is left out: {error}")
            return None

    def moved(self, path: str) -> Path:
        """A file that the run named, also where the run's folder was moved since."""
        named = Path(path)
        here = self.path / named.parent.name / named.name
        for candidate in (here, self.path / named.name):
            if candidate.exists():
                return candidate
        return named


def open_folder(path: Path) -> tuple[Folder, str]:
    """The folder of a run, and of what kind the run is.

    Raises:
        ReportError: it is no run.
    """
    folder = Folder(path)
    if not path.is_dir():
        raise ReportError(
            f"a run's folder is needed, got {path}, which is not there; runs lie under runs/ or where --out said"
        )
    about = folder.json("run.json")
    if "kind" not in about:
        raise ReportError(f"a run's folder is needed, got {path}, whose run.json is missing or damaged")
    return folder, str(about["kind"])


def number(value: object, form: str = ".3g") -> str:
    """A number for people; a dash where there is none."""
    return format(value, form) if isinstance(value, int | float) else "–"

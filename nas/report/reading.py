"""Reading a run's folder for its report: what is there is told, what is missing or damaged is remarked, nothing is changed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from latency.store import Predictor, read_predictor
from nas.checkpoint import Checkpoint, load_checkpoint
from nas.errors import ReportError
from searchspace.errors import NasError

Json = Mapping[str, Any]
Made = TypeVar("Made")
ODD = (KeyError, TypeError, AttributeError, ValueError, IndexError)  # what JSON that is not as a run writes it leads to


@dataclass(frozen=True)
class Folder:
    """A run's folder being read.

    Attributes:
        path: where it is.
        storage: Optuna storage URL of its study, where that does not lie in it; None: not known.
        remarks: grow with everything that could not be read.
    """

    path: Path
    storage: str | None = None
    remarks: list[str] = field(default_factory=list)

    def remark(self, text: str) -> None:
        """Tell something once."""
        if text not in self.remarks:
            self.remarks.append(text)

    def json(self, name: str) -> dict[str, Any]:
        """An object from a JSON file, empty where the file is missing or damaged."""
        try:
            text = (self.path / name).read_text(encoding="utf-8")
            content = json.loads(text, parse_constant=lambda _: None)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            self.remark(f"{name} is damaged and left out")
            return {}
        return content

    def result(self, what: str) -> dict[str, Any]:
        """What the run came to; empty, and remarked, where it (`what`) has not ended."""
        result = self.json("result.json")
        if not result:
            self.remark(f"{what} has not ended: what there is so far is shown")
        if skipped := self.part("Damaged images", lambda: list(result.get("skipped", []))):
            self.remark(f"damaged images left out: {len(skipped):,}; result.json names them, the first is {skipped[0]}")
        return result

    @property
    def request(self) -> dict[str, Any]:
        """What the run was asked for; empty where it does not say."""
        request = self.json("run.json").get("request")
        if isinstance(request, dict):
            return request
        self.remark("run.json does not say what the run was asked for")
        return {}

    def objects(self, content: Json, key: str) -> list[Json]:
        """The objects of a list in what a file holds; empty where it is not there or holds anything else."""
        found = content.get(key, [])
        if isinstance(found, list) and all(isinstance(entry, dict) for entry in found):
            return found
        self.remark(f"{key}: damaged and left out")
        return []

    def part(self, what: str, make: Callable[[], Made]) -> Made | None:
        """What `make` makes of the run's files; None and a remark where they are not as a run writes them."""
        try:
            return make()
        except ODD as error:
            self.remark(f"{what}: left out, since a file of the run is damaged ({type(error).__name__}: {error})")
            return None

    def checkpoint(self, path: Path) -> Checkpoint | None:
        """A checkpoint, None where it is missing or damaged."""
        try:
            return load_checkpoint(path)
        except NasError as error:
            self.remark(f"a network is left out: {error}")
            return None

    def latency_model(self) -> Predictor | None:
        """The model by which the run judged, None where it is missing or damaged."""
        path = self.path / "latency_model.json"
        if not path.exists():
            return None
        try:
            return read_predictor(path)
        except NasError as error:
            self.remark(f"the latency model is left out: {error}")
            return None

    def moved(self, path: str) -> Path:
        """A file that the run named, also where the run's folder was moved since."""
        named = Path(path)
        here = self.path / named.parent.name / named.name
        for candidate in (here, self.path / named.name):
            if candidate.exists():
                return candidate
        return named


def open_folder(path: Path, storage: str | None = None) -> tuple[Folder, str]:
    """The folder of a run (its study in a storage, where it does not lie there), and of what kind the run is.

    Raises:
        ReportError: it is no run.
    """
    folder = Folder(path, storage)
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

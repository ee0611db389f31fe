"""What was measured of a finalist goes with what is exported of it; whatever else a folder holds changes nothing."""

import json
from pathlib import Path

import onnx
import pytest

from nas.checkpoint import load_checkpoint
from nas.shipping.card import write_card
from nas.shipping.formats import Wish, export
from nas.shipping.origin import as_its_search_measured
from tests.nas.report.runs import architectures, search_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return search_run(tmp_path_factory.mktemp("runs") / "run")


def path_of(run: Path, finalist: int) -> Path:
    return run / "finalists" / f"{architectures(3)[finalist].fingerprint}.pt"


def test_a_finalists_file_and_card_have_its_measured_milliseconds(run: Path, tmp_path: Path) -> None:
    path = path_of(run, 1)
    checkpoint = as_its_search_measured(load_checkpoint(path), path)
    assert checkpoint.metrics["measured_ms"] == pytest.approx(0.202)
    assert checkpoint.metrics["target"] == "host"
    file = tmp_path / "network.onnx"
    machine, people = write_card(checkpoint, file, export(checkpoint, file, Wish(format="onnx")))
    said = {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}
    assert said["metrics"]["measured_ms"] == json.loads(machine.read_text())["metrics"]["measured_ms"]
    assert "| latency on host when it was found | 0.202 ms |" in people.read_text()
    assert not {"measured_ms", "target"} & checkpoint.at(64).metrics.keys(), "it was measured at another size"


def test_what_was_not_measured_is_not_told(run: Path, tmp_path: Path) -> None:
    for checkpoint, path in (
        (load_checkpoint(path_of(run, 2)), path_of(run, 2)),
        (load_checkpoint(path_of(run, 1)).at(64), path_of(run, 1)),
        (load_checkpoint(path_of(run, 1)), tmp_path / "finalists" / "copied.pt"),
    ):
        assert as_its_search_measured(checkpoint, path).metrics == checkpoint.metrics
    (tmp_path / "finalists").mkdir()
    checkpoint, path = load_checkpoint(path_of(run, 1)), tmp_path / "finalists" / "copied.pt"
    entry = {"fingerprint": checkpoint.architecture.fingerprint, "measured_ms": 0.2, "stable": False}
    for content in ("[", '{"finalists": 3}', '{"finalists": [3]}', json.dumps({"finalists": [entry]})):
        (tmp_path / "result.json").write_text(content)
        assert as_its_search_measured(checkpoint, path).metrics == checkpoint.metrics

"""What ARCH may be, and what is said of everything else."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas.arch import load_architecture
from nas.checkpoint import Checkpoint, DataRecord, save_checkpoint
from searchspace.errors import NasError
from searchspace.network import Network
from searchspace.references import REFERENCES, reference

SMALL = reference("mobilenet_v3_small", width_multiplier=0.35, resolution=32, classes=4)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "small.pt"
    record = DataRecord("", "", (0.5,) * 3, (0.5,) * 3)
    save_checkpoint(path, Checkpoint(SMALL, Network(SMALL).state_dict(), classes=(), data=record))
    return path


@pytest.fixture
def files(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside small.pt, files of every kind of trouble, in the working folder."""
    monkeypatch.chdir(checkpoint.parent)
    Path("folder.json").mkdir()
    Path("binary.json").write_bytes(b"\xff\xfe\x00\x80")
    Path("broken.json").write_text('{"format": 1, "blocks": [')
    Path("list.yaml").write_text("- 1\n")
    Path("notes.txt").write_text("hello")
    Path("good.json").write_text(SMALL.to_json())


@pytest.mark.parametrize("name", REFERENCES)
def test_a_name_is_the_reference(name: str) -> None:
    assert load_architecture(name) == reference(name)


def test_settings_apply_to_a_reference() -> None:
    got = load_architecture("mobilenet_v2", width_multiplier=0.5, resolution=96, classes=10, channels=1)
    assert got == reference("mobilenet_v2", width_multiplier=0.5, resolution=96, classes=10, channels=1)


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_a_file_is_what_it_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_text(SMALL.to_json() if suffix == ".json" else yaml.safe_dump(SMALL.to_dict()))
    assert load_architecture(str(path)) == SMALL
    assert load_architecture(str(path), resolution=64, classes=7).shapes[0].height == 64


def test_a_file_without_a_name_is_called_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(dataclasses.replace(SMALL, name="").to_json())
    assert load_architecture(str(path)).name == "mine"


def test_a_checkpoint_is_its_architecture(checkpoint: Path) -> None:
    assert load_architecture(str(checkpoint)) == SMALL
    assert load_architecture(str(checkpoint), resolution=64) == dataclasses.replace(SMALL, resolution=64)


def test_a_folder_does_not_hide_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mobilenet_v2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_architecture("mobilenet_v2") == reference("mobilenet_v2")


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("mobilenet_v5", {}, "no reference architecture is called 'mobilenet_v5'; did you mean mobilenet_v"),
        ("absent.json", {}, r"absent.json: an architecture file is needed, got none \(No such file"),
        ("absent.pt", {}, r"absent.pt: .*No such file"),
        ("folder.json", {}, "is a folder"),
        ("binary.json", {}, "is text, got something else"),
        ("broken.json", {}, "broken.json: "),
        ("list.yaml", {}, "list.yaml: an architecture file must hold one mapping, got list"),
        ("notes.txt", {}, "must end in .json, .yaml, .yml, .pt"),
        ("good.json", {"width_multiplier": 0.5}, "--width-multiplier does not apply to .*good.json"),
        ("small.pt", {"width_multiplier": 0.5}, "--width-multiplier does not apply to"),
        ("small.pt", {"classes": 10}, "--classes does not apply to"),
        ("small.pt", {"channels": 1}, "--channels does not apply to"),
        ("small.pt", {"resolution": 0}, "resolution must be a whole number from 1, got 0"),
        ("squeezenet_1_0", {"resolution": 8}, r"block \d+ .*must fit"),
    ],
)
@pytest.mark.usefixtures("files")
def test_what_cannot_be_taken_is_named_in_one_line(text: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(NasError, match=message) as error:
        load_architecture(text, **settings)
    assert "\n" not in str(error.value)


def test_names_and_files_do_not_load_torch(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(SMALL.to_json())
    code = (
        "import sys\nfrom nas.arch import load_architecture\nfrom nas.description import describe, rows\n"
        f"for text in ('mobilenet_v2', {str(path)!r}):\n    describe(load_architecture(text))\n"
        "print({'torch', 'onnx', 'onnxruntime', 'optuna', 'numpy'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.strip() == "set()"

"""The frame of the command line: quick to start, one line for wrong input, exit codes, nothing but JSON on stdout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.cli.console import show_json
from nas.report.kinds import page_of
from tests.nas.cli.shell import Shell
from tests.nas.learning import small

ROOT = Path(__file__).parents[3]


def nas(*arguments: str, home: Path, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, with a home of its own."""
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "COLUMNS": "200",
    }
    code = "from nas.cli import main; main()"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    if check is not None:
        assert process.returncode == check, process.stderr
    return process


def refused(*arguments: str, home: Path) -> str:
    """The one line that a wrong input gets."""
    process = nas(*arguments, home=home, check=2)
    assert process.stdout == ""
    assert "Traceback" not in process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("error:")
    return line


def test_help_names_every_command_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom nas.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'optuna', 'onnx', 'onnxruntime', 'sklearn', 'scipy', 'numpy', 'PIL'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60
    )
    for command in (
        "search",
        "show",
        "train",
        "evaluate",
        "export",
        "import",
        "predict",
        "measure",
        "profile",
        "targets",
        "report",
        "dashboard",
        "doctor",
    ):
        assert f" {command} " in process.stdout
    assert "heavy: []" in process.stdout


@pytest.mark.parametrize("package", ["searchspace", "latency"])
def test_packages_are_light(package: str) -> None:
    heavy = {"searchspace": "{'torch', 'onnx', 'optuna'}", "latency": "{'torch', 'optuna'}"}[package]
    modules = [
        path.stem
        for path in (ROOT / package).glob("*.py")
        if path.stem not in ("__init__", "network", "onnx_graph", "runner")
    ]
    code = f"import sys\nimport {', '.join(f'{package}.{name}' for name in modules)}\nprint({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert out.strip() == "set()"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    source = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = source.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    """The command line with a home of its own, in this process: it is quicker where many errors are looked at."""
    for kind in ("DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    return Shell(capsys, monkeypatch)


def test_wrong_input_to_search_is_one_line_and_exit_code_2(shell: Shell, tmp_path: Path, images: Path) -> None:
    out = str(tmp_path / "run")
    assert "'pixle'" in shell.error("search", "--target", "pixle")
    (tmp_path / "empty").mkdir()
    assert "empty" in shell.error("search", "--data", str(tmp_path / "empty"), "--out", out)
    (images / "dog").rename(tmp_path / "dog")
    assert "class" in shell.error("search", "--data", str(images), "--out", out)
    (tmp_path / "dog").rename(images / "dog")
    (images / "cat" / "3.png").write_bytes(b"\x89PNG damaged")
    assert "3.png" in shell.error("search", "--data", str(images), "--strict", "--out", out)
    space = tmp_path / "space.yaml"
    space.write_text(
        "{format: 1, resolution: 2, stages: [{depth: 1, width: 8, stride: 2, blocks: {conv: {}}}], stem: {width: 8}}"
    )
    assert "exceeds 2 px" in shell.error("search", "--space", str(space))
    assert "--budget-ms must be a finite number above 0" in shell.error("search", "--budget-ms", "-1")
    assert "--budget-ms must be a finite number above 0" in shell.error("search", "--budget-ms", "inf")
    assert "a run needs a folder" in shell.error("search", "--out", str(space))
    assert "rungs must be whole numbers" in shell.error("search", "--rungs", "5000,many")
    assert not Path(out).exists()


def test_an_architecture_file_with_an_unknown_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text('{"format": 1, "blocks": [], "head": {"head": "nin"}, "depth": 3}')
    line = refused("show", str(tmp_path / "net.json"), home=tmp_path)
    assert "net.json" in line
    assert "unknown key 'depth'" in line


def test_a_target_without_model_says_how_to_make_one(tmp_path: Path) -> None:
    assert "run `nas profile --target host`" in refused("predict", "mobilenet_v2", home=tmp_path)
    answer = json.loads(nas("targets", "--json", home=tmp_path).stdout)
    assert answer["targets"][0]["name"] == "host"
    assert answer["targets"][0]["ready"] is False


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_command_leaves_with_130(name: str) -> None:
    code = f"""
import os, signal, time
from nas.cli.console import app, main
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests' own parent ignores it
@app.command()
def wait() -> None:
    os.kill(os.getpid(), signal.{name})
    time.sleep(60)
main()
"""
    process = subprocess.run(
        [sys.executable, "-c", code, "wait"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert process.returncode == 130
    assert process.stdout == ""
    assert process.stderr.startswith("interrupted: what was done is kept")


def test_json_is_strict_json(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"loss": float("nan"), "curve": [{"loss": float("inf")}, np.float32(0.5)], "run": Path("ünï")})
    answer = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert answer == {"loss": None, "curve": [{"loss": None}, 0.5], "run": "ünï"}


def test_damaged_images_are_named(images: Path, tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for index in range(12):
        (images / "cat" / f"{index}.png").write_bytes(b"\x89PNG damaged")
    Path("small.json").write_text(small().to_json())
    command = ("train", "small.json", "--data", str(images), "--epochs", 0.5, "--threads", 1, "--out", "run", "--json")
    code, out, err = shell(*command)
    assert code == 0, err
    assert "damaged images left out: 12: cat/0.png: " in err
    assert err.count("cat/") == 10 and "; and 2 more" in err
    skipped = json.loads(out)["skipped"]
    assert {line.partition(":")[0] for line in skipped} == {f"cat/{index}.png" for index in range(12)}
    assert json.loads(Path("run/result.json").read_text())["skipped"] == skipped
    assert any(
        "damaged images left out: 12; result.json names them" in remark for remark in page_of(Path("run")).remarks
    )
    assert shell.json("evaluate", "run", "--data", str(images))["skipped"] == skipped


def test_a_file_of_architectures_takes_no_options_and_must_hold_one(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n")
    command = ("predict", str(tmp_path / "none.jsonl"), "--target", "pixel6")
    assert "must hold at least one" in refused(*command, home=tmp_path)
    line = refused(*command, "--resolution", "32", home=tmp_path)
    assert "--resolution 32 does not apply" in line


def test_unknown_options_are_refused_in_one_line(tmp_path: Path) -> None:
    assert "--bugdet-ms" in refused("search", "--bugdet-ms", "3", home=tmp_path)

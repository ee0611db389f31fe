"""`nas netadapt` on the command line: the contract's keys, resuming, one line for what is wrong."""

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from latency.errors import DeviceError
from latency.fake import FakeDevice, true_ms
from latency.target import Target, load_target
from latency.timing import Slice, Timing
from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.data import load_data
from nas.deployment import accuracy, random_checkpoint
from nas.evaluation import as_trained
from nas.neighbours import model_near
from searchspace.architecture import Architecture
from searchspace.blocks import ClassicHead, Conv
from tests.nas.cli.shell import Shell

BRIEF = ("--epochs", 0.2, "--importance", "l2")
QUICK = ("--short-images", 64, "--workers", 1, *BRIEF)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what the first test makes and all others begin with."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def start(nas: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: Path) -> str:
    """A trained checkpoint, and a pretended device instead of this machine, with a latency model that knows the network."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(Target, "open", lambda target: FakeDevice(target.name))
    monkeypatch.setattr("nas.calibration.PAUSE_S", 0.0)
    if not any(made.iterdir()):
        nas("train", "small.json", "--data", "digits", "--epochs", 3, "--threads", 1, "--out", "start")
        model_near(load_target("host"), load_checkpoint(Path("start/network.pt")).architecture, note=[].append)
        for folder in ("start", "data"):
            shutil.copytree(folder, made / folder)
    shutil.copytree(made, ".", dirs_exist_ok=True)
    torch.set_num_threads(1)
    return "start/network.pt"


def test_a_run_and_what_comes_of_it(nas: Shell, start: str) -> None:
    command = ("netadapt", start, "--budget-ratio", 0.9, "--step", 0.06, *QUICK, "--distill", 0.5, "--out", "run")
    result = nas.json(*command)
    assert {"checkpoint", "accuracy", "start_ms", "predicted_ms", "measured_ms", "steps"} <= result.keys()
    assert (result["target"], result["basis"], result["remark"], result["emulated"]) == (
        "host",
        "measured",
        None,
        False,
    )
    assert result["measured_ms"] <= result["budget_ms"] == pytest.approx(0.9 * result["start_ms"])
    assert result["low_ms"] <= result["predicted_ms"] <= result["high_ms"]
    assert [step["step"] for step in result["steps"]] == list(range(len(result["steps"])))
    assert all(load_checkpoint(Path(step["checkpoint"])) for step in result["steps"])
    judged = nas.json("evaluate", result["checkpoint"], "--data", "digits")
    assert judged["accuracy"] == pytest.approx(result["accuracy"]), "judged on the same test split"
    assert nas.json("export", result["checkpoint"], "-o", "small.onnx")["max_abs_diff"] < 1e-3
    assert load_checkpoint(Path(result["checkpoint"])).metrics["target"] == "host"
    assert json.loads(Path("run/result.json").read_text()) == result
    assert "Accuracy against latency" in Path("run/figures/path.svg").read_text()
    assert "run/figures/path.png" in result["figures"]
    assert nas.json(*command) == result, "the same command makes nothing anew"
    assert "was started with budget_ratio 0.9" in nas.error(
        "netadapt", start, "--budget-ratio", 0.8, *QUICK, "--out", "run"
    )
    code, out, _ = nas(*command)
    assert code == 0
    assert "faster), accuracy on the test split" in out
    uniform = nas.json("netadapt", start, "--budget-ratio", 0.9, "--method", "uniform", *BRIEF, "--out", "uniform")
    assert "width multiplier" in uniform["steps"][1]["what"]
    assert uniform["measured_ms"] <= uniform["budget_ms"]
    assert uniform["images"]["short"] == 0


def test_a_width_multiplier_is_fine_tuned_on_as_many_images_as_a_trimming(nas: Shell, start: str) -> None:
    trimmed = nas.json("netadapt", start, "--budget-ratio", 0.9, "--step", 0.06, *QUICK, "--out", "run")
    images = trimmed["images"]
    assert images["short"] == sum(step["images"] for step in trimmed["steps"]) > 0
    assert images["long"] == load_checkpoint(Path(trimmed["checkpoint"])).metrics["images"]
    uniform = ("netadapt", start, "--budget-ratio", 0.9, "--method", "uniform", "--importance", "l2", "--images-of")
    scaled = nas.json(*uniform, "run", "--out", "uniform")
    spent = images["short"] + images["long"]
    assert spent - 32 < scaled["images"]["long"] <= spent, "as many whole batches"
    assert nas.json(*uniform, "run", "--out", "uniform") == scaled
    for other in ("start", "start/network.pt", "nowhere", "uniform"):
        assert f"{other}: --images-of needs a run of `nas netadapt`" in nas.error(*uniform, other, "--out", "other")
    for options in (("--method", "uniform", "--epochs", 1), ()):
        refused = nas.error("netadapt", start, "--budget-ratio", 0.9, "--images-of", "run", *options)
        assert "it goes with --method uniform, not with --epochs" in refused


def test_a_target_without_a_device(nas: Shell, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published latencies are all there is: trimming goes by predictions, and says so."""
    monkeypatch.setattr(Target, "open", lambda target: pytest.fail("there is no device to open"))
    for method, ratio, quick in (("netadapt", 0.9, QUICK), ("uniform", 0.98, BRIEF)):
        limits = ("--target", "pixel6", "--budget-ratio", ratio, "--method", method)
        command = ("netadapt", start, *limits, *quick, "--out", method)
        result = nas.json(*command)
        assert result["measured_ms"] is None
        assert (result["target"], result["basis"], result["emulated"]) == ("pixel6", "published", False)
        assert "not measured: median error" in result["remark"]
        assert all(step["measured_ms"] is None for step in result["steps"])
        assert result["predicted_ms"] <= result["budget_ms"] == pytest.approx(ratio * result["start_ms"])
        assert result["low_ms"] < result["predicted_ms"] < result["high_ms"]
    code, out, err = nas(*command)
    assert (code, "ms as predicted (" in out, "from published latencies" in out) == (0, True, True)
    assert "not measured: median error" in out
    assert "not measured: median error" in err, "also of a model that was kept"
    assert nas("report", "netadapt", "-o", "report.html")[0] == 0
    assert "ms as predicted from published latencies" in Path("report.html").read_text()
    unknown = random_checkpoint(
        Architecture((Conv(cout=8, activation="silu"),), ClassicHead(), resolution=8, channels=1, classes=10)
    )
    trained = dataclasses.replace(load_checkpoint(Path(start)), architecture=unknown.architecture, state=unknown.state)
    save_checkpoint(Path("silu.pt"), trained)
    command = ("netadapt", "silu.pt", "--target", "pixel6", "--budget-ratio", 0.5, *QUICK, "--out", "silu")
    assert "no network published for 'pixel6' has 'activation silu'" in nas.error(*command)
    assert [path.name for path in Path("silu").iterdir()] == [".lock"]


def test_what_the_latency_model_is_sure_of_is_said_at_once(
    nas: Shell, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Target, "open", lambda target: pytest.fail("nothing needs to be measured"))
    refused = nas.error("netadapt", start, "--target", "pixel6", "--budget-ms", 1000, "--data", "nowhere")
    assert "there is nothing to trim: the network is predicted to take" in refused
    assert not Path("runs").exists()


def test_images_are_those_that_the_network_was_trained_on_or_must_be_named(nas: Shell, start: str) -> None:
    trained = load_checkpoint(Path(start))
    photos = dataclasses.replace(trained.data, name="photos", fingerprint="p")
    save_checkpoint(Path("photos.pt"), dataclasses.replace(trained, data=photos))
    command = ("netadapt", "photos.pt", "--budget-ratio", 0.0001, *QUICK, "--target", "pixel6")
    refused = nas.error(*command)
    assert "--data must say which images: the network was trained on 'photos', not on the default 'digits'" in refused
    assert "the fastest reachable is about" in nas.error(*command, "--data", "digits")
    assert Path("runs/netadapt-photos-pixel6-0.0001x").is_dir()


class Surprising(FakeDevice):
    """Takes longer for a trained model than for one that stands in for it."""

    def measure(self, models: Sequence[bytes], **options: Any) -> list[Timing]:
        found = super().measure(models, **options)
        return [
            Timing(tuple(Slice(tuple(2 * ns for ns in part.ns), part.probe_ns) for part in one.slices))
            if onnx.load_from_string(model).metadata_props
            else one
            for model, one in zip(models, found, strict=True)
        ]


def test_of_an_8_bit_target_the_file_that_ships_is_judged_and_measured(
    nas: Shell, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = ("--target", "host-int8", "--budget-ratio", 0.9, "--step", 0.06)
    command = ("netadapt", start, *limit, *QUICK, "--out", "run")
    result = nas.json(*command)
    model = Path(result["onnx"]).read_bytes()
    assert "QuantizeLinear" in {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert result["precision"] == "int8"
    assert result["measured_ms"] == pytest.approx(true_ms(model), rel=1e-3)
    assert result["start_ms"] == pytest.approx(true_ms(Path("run/step-00-int8.onnx").read_bytes()), rel=1e-3)
    assert result["budget_ms"] == pytest.approx(0.9 * result["steps"][0]["measured_ms"])
    assert result["within_budget"] == (result["measured_ms"] <= result["budget_ms"])
    digits = as_trained(load_data("digits"), load_checkpoint(Path(start)))
    assert result["accuracy"] == accuracy(model, digits.test, digits)
    assert result["trained_accuracy"] == pytest.approx(nas.json("evaluate", result["checkpoint"])["accuracy"])
    assert nas.json(*command) == result, "the same command makes nothing anew"
    Path(result["onnx"]).with_suffix(".json").unlink()
    monkeypatch.setattr(Target, "open", lambda target: Surprising(target.name))
    code, out, err = nas(*command)
    assert code == 0
    assert "on host-int8 (int8), milliseconds (measured)" in " ".join(out.split())
    assert "that is of the 8-bit files that ship" in " ".join(out.split())
    assert "is not met: give a smaller one" in " ".join(out.split())
    assert "the 8-bit file takes" in err and "more than the budget" in err


def test_the_targets_own_budget_is_the_limit_where_none_is_given(nas: Shell, start: str) -> None:
    Path("board.yaml").write_text("name: board\ndevice: {kind: host}\nbudget_ms: 1000\n")
    command = ("netadapt", start, "--target", "board.yaml", *QUICK)
    assert "nothing to trim" in nas.error(*command)
    assert Path("runs/netadapt-start-board-1000ms").is_dir()
    nas.error(*command, "--budget-ms", 500, "--seed", 3)
    assert Path("runs/netadapt-start-board-500ms-seed3").is_dir()
    assert "fastest reachable is about" in nas.error(*command, "--budget-ratio", 0.0001, "--out", "ratio")


class Lost(FakeDevice):
    """A device that is unplugged after the start was measured."""

    seen_start = False

    def measure(self, models: Sequence[bytes], **options: Any) -> list[Timing]:
        if len(models) == 2 and self.seen_start:  # a trimmed network beside the start
            raise DeviceError(f"{self.name}: is not there any more")
        self.seen_start = self.seen_start or len(models) == 1
        return super().measure(models, **options)


class Restless(FakeDevice):
    """A device on which every other slice takes twice as long."""

    def measure(self, models: Sequence[bytes], **options: Any) -> list[Timing]:
        return [
            Timing(
                tuple(
                    Slice(tuple(ns * (1 + number % 2) for ns in part.ns), part.probe_ns)
                    for number, part in enumerate(one.slices)
                )
            )
            for one in super().measure(models, **options)
        ]


def test_a_device_that_is_lost_in_the_middle(nas: Shell, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("netadapt", start, "--budget-ratio", 0.9, "--measure-every", 1, *QUICK, "--out", "run")
    device = Lost("host")
    with monkeypatch.context() as unplugged:
        unplugged.setattr(Target, "open", lambda target: device)
        refused = nas.error(*command)
        assert "is not there any more; what was done is kept, the same command goes on from there" in refused
    assert Path("run/step-00.json").exists()
    assert not Path("run/step-01.json").exists()
    with monkeypatch.context() as busy:
        busy.setattr(Target, "open", lambda target: Restless(target.name))
        refused = nas.error(*command)
        assert "host: a measurement must settle to be believed" in refused
        assert "the same command goes on from there" in refused
    result = nas.json(*command)
    assert result["measured_ms"] <= result["budget_ms"]


def test_a_budget_that_proves_impossible_leaves_the_folder_to_another(nas: Shell, start: str) -> None:
    for method, options in (("netadapt", QUICK), ("uniform", BRIEF)):
        for budget_ms, reason in ((1e-6, "the fastest reachable is about"), (1000, "there is nothing to trim")):
            assert reason in nas.error(
                "netadapt", start, "--method", method, "--budget-ms", budget_ms, *options, "--out", "run"
            )
            assert [path.name for path in Path("run").iterdir()] == [".lock"]
    result = nas.json("netadapt", start, "--budget-ratio", 0.9, "--method", "uniform", *BRIEF, "--out", "run")
    assert result["measured_ms"] <= result["budget_ms"]


def test_wrong_input_is_one_line(nas: Shell, start: str) -> None:
    ratio = ("--budget-ratio", 0.9)
    assert "exactly one limit is needed" in nas.error("netadapt", start)
    assert "got --budget-ms, --budget-ratio" in nas.error("netadapt", start, *ratio, "--budget-ms", 1)
    assert "nothing to trim" in nas.error("netadapt", start, "--budget-ms", 1000, *QUICK)
    assert "fastest reachable is about" in nas.error("netadapt", start, "--budget-ms", 1e-6, *QUICK, "--out", "other")
    assert "there is no such file" in nas.error("netadapt", start, *ratio, "--data", "nowhere")
    assert "share of distillation" in nas.error("netadapt", start, *ratio, "--distill", 2)
    assert "pixle" in nas.error("netadapt", start, *ratio, "--target", "pixle")
    assert "must be milliseconds (0.5ms) or a fraction" in nas.error(
        "netadapt", start, *ratio, "--step", "x", *QUICK, "--out", "early"
    )
    assert not Path("early").exists(), "what can be seen at once is not found out after profiling"
    uniform = ("netadapt", start, *ratio, "--method", "uniform")
    unreachable = ("netadapt", start, "--target", "pixel6", "--budget-ratio", 0.5, "--method", "uniform", *BRIEF)
    assert "the fastest reachable is about" in nas.error(*unreachable, "--out", "far")
    assert "takes no options about steps, got --step, --short-images" in nas.error(*uniform, *QUICK[:2], "--step", 0.1)
    Path("text.pt").write_text("not a checkpoint")
    assert "text.pt" in nas.error("netadapt", "text.pt", *ratio)
    torch.save({"model": torch.zeros(3)}, "plain.pt")
    assert "plain.pt" in nas.error("netadapt", "plain.pt", *ratio)
    assert "missing.pt" in nas.error("netadapt", "missing.pt", *ratio)
    pixels = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez("three.npz", x_train=pixels, y_train=np.arange(60) % 3)
    assert "the classes must be the network's" in nas.error("netadapt", start, *ratio, "--data", "three.npz")

"""`nas train`, `evaluate` and `export` on the command line: the contract's keys, exit codes, one line for what is wrong."""

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.deployment import random_checkpoint
from nas.distillation import Distillation, Lesson
from nas.errors import TrainingError
from tests.nas.cli.shell import Shell
from tests.nas.learning import small


def test_train_evaluate_export_agree(nas: Shell) -> None:
    train = ("train", "small.json", "--data", "digits", "--epochs", 3, "--threads", 1, "--out", "run")
    trained = nas.json(*train)
    assert {"checkpoint", "accuracy", "epochs", "images_per_second"} <= trained.keys()
    assert trained["epochs"] == pytest.approx(3, abs=0.05)
    assert trained["accuracy"] > 0.3
    judged = nas.json("evaluate", trained["checkpoint"], "--data", "digits")
    assert judged == {**{key: trained[key] for key in ("accuracy", "loss", "skipped")}, "images": judged["images"]}
    exported = nas.json("export", trained["checkpoint"], "--format", "onnx", "-o", "small.onnx", "--data", "digits")
    assert exported["accuracy"] == trained["accuracy"]
    assert exported["accuracy_split"] == "test"
    assert exported["bytes"] == Path("small.onnx").stat().st_size
    assert exported["max_abs_diff"] < 1e-4
    assert exported["weights"] == "trained"
    assert json.loads(Path(exported["card"]).read_text())["export"]["bytes"] == exported["bytes"]

    before = Path(trained["checkpoint"]).read_bytes()
    assert nas.json(*train) == trained, "the same command did not give the same result"
    assert Path(trained["checkpoint"]).read_bytes() == before
    assert "was started with epochs 3.0, now 4.0" in nas.error(*train, "--epochs", 4)

    code, out, _ = nas("train", trained["checkpoint"], "--epochs", 1, "--threads", 1, "--recipe", "brief")
    assert code == 0
    assert "test images" in out
    assert load_checkpoint(Path("runs/train-digits-run/network.pt")).metrics["accuracy"] > trained["accuracy"] - 0.2


def test_a_checkpoint_is_trained_from_its_weights_unless_told(nas: Shell) -> None:
    save_checkpoint(Path("start.pt"), random_checkpoint(small(), seed=4))
    Path("none.yaml").write_text("images: 2\nbatch_size: 2\nlr: 1e-12\n")
    weights = {}
    for name, options in (("kept", ()), ("scratch", ("--from-scratch",))):
        result = nas.json("train", "start.pt", "--recipe", "none.yaml", "--threads", 1, "--out", name, *options)
        weights[name] = load_checkpoint(Path(result["checkpoint"])).state["blocks.0.conv.weight"]
    start = load_checkpoint(Path("start.pt")).state["blocks.0.conv.weight"]
    assert weights["kept"].allclose(start, atol=1e-6)
    assert not weights["scratch"].allclose(start, atol=1e-2)


def test_images_that_a_checkpoint_was_trained_on_are_never_held_out_from_its_further_training(nas: Shell) -> None:
    Path("none.yaml").write_text("images: 2\nbatch_size: 2\nlr: 1e-12\n")
    common = ("--recipe", "none.yaml", "--threads", 1)
    first = nas.json("train", "small.json", *common, "--seed", 3, "--out", "first")
    further = ("train", first["checkpoint"], *common, "--seed", 5, "--out")
    code, _, err = nas(*further, "further")
    assert code == 0 and "may have seen" not in err
    nas.json("train", first["checkpoint"], *common, "--seed", 5, "--from-scratch", "--out", "scratch")
    records = {name: load_checkpoint(Path(name) / "network.pt") for name in ("first", "further", "scratch")}
    assert (
        records["further"].data.fingerprint == records["first"].data.fingerprint != records["scratch"].data.fingerprint
    )
    assert [one.metrics["seed"] for one in records.values()] == [3, 3, 5]
    assert load_checkpoint(Path("further/last.pt")).metrics["seed"] == 3
    judged = nas.json("evaluate", "further/network.pt")
    assert judged["accuracy"] == records["further"].metrics["test_accuracy"]

    other = dataclasses.replace(records["first"], metrics={**records["first"].metrics, "seed": 4})
    save_checkpoint(Path("other.pt"), other)
    code, _, err = nas("train", "other.pt", *common, "--out", "other")
    assert code == 0 and "some held out here it may have seen" in err


def test_export_without_weights_says_so(nas: Shell) -> None:
    code, out, err = nas("export", "small.json", "--json")
    assert code == 0
    assert "no weights: random ones from seed 0" in err
    assert json.loads(out).items() >= {"path": "small.onnx", "format": "onnx", "accuracy": None}.items()


def test_further_trainings_of_two_runs_have_a_folder_each(nas: Shell) -> None:
    Path("none.yaml").write_text("images: 2\nbatch_size: 2\nlr: 1e-12\n")
    common = ("--recipe", "none.yaml", "--threads", 1)
    assert nas.json("train", "small.json", *common)["run"] == "runs/train-digits-small"
    for name in ("one", "other"):
        nas.json("train", "small.json", *common, "--out", name)
        assert nas.json("train", name, *common)["run"] == f"runs/train-digits-{name}"


@pytest.mark.parametrize("batch", ["3", "any"])
def test_exported_batches(nas: Shell, batch: str) -> None:
    import onnx

    nas.json("export", "small.json", "--batch", batch, "-o", "batched.onnx")
    first = onnx.load("batched.onnx").graph.input[0].type.tensor_type.shape.dim[0]
    assert first.dim_value == 3 if batch == "3" else first.dim_param == "batch"


def test_a_checkpoint_is_exported_at_another_resolution(nas: Shell) -> None:
    import onnx

    judged = dataclasses.replace(random_checkpoint(small()), metrics={"accuracy": 0.9, "loss": 0.1, "seed": 0})
    save_checkpoint(Path("start.pt"), judged)
    told = nas.json("export", "start.pt", "-o", "same.onnx")
    assert (told["accuracy"], told["accuracy_split"]) == (0.9, "validation")
    assert "| accuracy on the validation split | 90.00% |" in Path("same.onnx.card.md").read_text()
    larger = nas.json("export", "start.pt", "--resolution", 12, "-o", "larger.onnx")
    assert larger["accuracy"] is larger["accuracy_split"] is None, "it was measured at another size"
    assert "accuracy" not in Path("larger.onnx.card.md").read_text()
    assert onnx.load("larger.onnx").graph.input[0].type.tensor_type.shape.dim[2].dim_value == 12
    assert "--classes does not apply to start.pt" in nas.error("export", "start.pt", "--classes", 12)


def test_without_data_a_file_is_compared_on_the_networks_own_where_that_is_found(nas: Shell) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez("photos.npz", images=images, labels=np.arange(60) % 3)
    trained = nas.json("train", "small.json", "--data", "photos.npz", "--epochs", 0.5, "--threads", 1, "--seed", 2)
    Path("photos").mkdir()  # no images in it
    code, out, err = nas("export", trained["run"], "-o", "a.onnx", "--json")
    assert code == 0 and "compared and judged on photos.npz, the data that the network was trained on" in err
    told = json.loads(out)
    assert told["compared_on"].endswith("of photos's test split")
    assert (told["accuracy"], told["accuracy_split"]) == (trained["accuracy"], "test")
    for change in ("other", "gone"):
        if change == "other":
            np.savez("photos.npz", images=images[:30], labels=np.arange(30) % 3)
        else:
            Path("photos.npz").unlink()
        code, out, err = nas("export", trained["run"], "-o", "a.onnx", "--json")
        assert code == 0 and "compared on random images" in err
        assert json.loads(out)["compared_on"] == "random images"


def test_eight_bits_without_data_are_refused_before_anything_is_made(nas: Shell) -> None:
    code, _, err = nas("export", "small.json", "--format", "onnx-int8")
    assert code == 2 and "give --data" in err
    assert "random ones" not in err


def test_what_is_wrong_is_said_in_one_line(nas: Shell, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "other.pt", random_checkpoint(small()))
    assert "--format must be one of onnx, onnx-int8, ort" in nas.error("export", "small.json", "--format", "coreml")
    assert "--batch must be a number from 1, or any; got '0'" in nas.error("export", "small.json", "--batch", "0")
    assert "none.pt" in nas.error("evaluate", "none.pt")
    assert "classes must be the network's, 3 of them, got 0, 1" in nas.error("evaluate", "other.pt")
    Path("cut.pt").write_bytes((tmp_path / "other.pt").read_bytes()[:999])
    assert "cut short" in nas.error("evaluate", "cut.pt")
    assert "unknown key 'epoch'" in _with_recipe(nas, "epoch: 3")
    assert "lower it" in _with_recipe(nas, "epochs: 3\nlr: 1e18\nwarm_up: 0")
    assert "epochs must be a finite number above 0" in nas.error("train", "small.json", "--epochs", "0")
    assert "no such file or folder" in nas.error("train", "small.json", "--data", "nowhere")
    unused = nas.error("train", "small.json", "--temperature", 3, "--replicas", 8)
    assert "--temperature, --replicas would change nothing without --teacher" in unused


def _with_recipe(nas: Shell, text: str) -> str:
    Path("recipe.yaml").write_text(text)
    return nas.error("train", "small.json", "--recipe", "recipe.yaml", "--threads", 1)


@pytest.mark.parametrize("command", ["train", "evaluate", "export"])
def test_help_has_an_example(nas: Shell, command: str) -> None:
    code, out, _ = nas(command, "--help")
    assert code == 0
    assert f"nas {command} " in out.partition("Example:")[2]


def test_a_teacher_on_the_command_line(nas: Shell) -> None:
    common = ("--data", "digits", "--threads", 1, "--seed", 0)
    teacher = nas.json("train", "small.json", *common, "--epochs", 2, "--out", "teacher")
    taught = ("train", "small.json", *common, "--epochs", 1, "--teacher", teacher["checkpoint"], "--out", "taught")
    told = nas.json(*taught)
    assert Path(told["last"]).exists()
    assert json.loads(Path("taught/curve.json").read_text())["curve"] == told["curve"]
    (labels,) = Path("cache/pocketnas/soft_labels").glob("*/replica-000.f16")
    labels.write_bytes(labels.read_bytes()[:-1] + b"?")
    code, _, err = nas(*taught[:-1], "again")
    assert code == 0
    assert "was damaged: the teacher has been asked again" in err
    assert (
        load_checkpoint(Path("again/network.pt")).metrics["loss"]
        == load_checkpoint(Path("taught/network.pt")).metrics["loss"]
    )
    assert "was started with teacher" in nas.error(*taught[:-4], "--out", "taught")
    assert "in [0, 1], got 3" in nas.error(*taught[:-1], "other", "--distill-weight", 3)


def test_a_teacher_of_the_user_s_own_file(nas: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    Path("my_teacher.py").write_text(
        "from torch import nn\ndef make(outputs=10):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))\n"
        "def other():\n    return make(9)\n"
    )
    train = ("train", "small.json", "--threads", 1, "--epochs", 0.1, "--replicas", 1, "--out", "run")
    assert "my_teacher:other: a teacher must tell the data's 10 classes apart" in nas.error(
        *train, "--teacher", "my_teacher:other"
    )
    nas.json(*train, "--teacher", "my_teacher:make")


def test_each_of_several_processes_asks_its_teacher_on_its_own_card(
    nas: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("nas.cli.console.stderr.quiet", False)  # set back afterwards

    def distillation(lesson: Lesson, device: str | None = None) -> Distillation:
        asked.append((lesson.teacher, device))
        raise TrainingError("no card here")

    monkeypatch.setattr(Lesson, "distillation", distillation)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name, value in (("RANK", 1), ("WORLD_SIZE", 2), ("LOCAL_RANK", 1)):
        monkeypatch.setenv(name, str(value))
    code, _, _ = nas("train", "small.json", "--teacher", "big.pt")
    assert (code, asked) == (2, [("big.pt", "cuda:1")])


def test_a_training_that_diverges_says_so_and_frees_its_folder(nas: Shell) -> None:
    Path("wild.yaml").write_text("epochs: 1\nlr: 1e18\nwarm_up: 0\n")
    train = ("train", "small.json", "--data", "digits", "--threads", 1, "--out", "run", "--recipe")
    assert "the loss became nan within" in nas.error(*train, "wild.yaml")
    assert nas(*train, "brief", "--epochs", 0.5)[0] == 0


@pytest.mark.slow
def test_killed_ten_times_at_random_moments(nas: Shell) -> None:
    """The network in the end is, bit by bit, that of a run which nobody disturbed."""
    Path("how.yaml").write_text(
        "epochs: 4\nbatch_size: 32\nema_decay: 0.99\ndropout: 0.2\ndrop_path: 0.1\nrand_augment: 2\nmixup: 0.2\n"
    )
    command = [sys.executable, "-m", "nas", "train", "small.json", "--recipe", "how.yaml", "--threads", "1", "--out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    began = time.monotonic()
    subprocess.run([*command, "whole"], env=environment, check=True, capture_output=True)
    whole_s = time.monotonic() - began
    source, kills = random.Random(0), 0
    for _ in range(100):
        process = subprocess.Popen(
            [*command, "killed"], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            assert process.wait(timeout=None if kills == 10 else source.uniform(0.3, 1.0) * whole_s) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert kills
    one, other = (load_checkpoint(Path(name) / "network.pt").state for name in ("whole", "killed"))
    assert all(one[name].equal(tensor) for name, tensor in other.items())

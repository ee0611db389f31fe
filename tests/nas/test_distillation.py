"""Distillation: the loss is the textbook's, teachers are asked once, students see what their teacher saw."""

import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.error import URLError

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nas.soft_labels
from nas.checkpoint import Checkpoint, save_checkpoint
from nas.data import Augmentation, Batches
from nas.deployment import export_onnx, first_images
from nas.distillation import Distillation
from nas.errors import CheckpointError, TrainingError
from nas.optimisation import augmentation
from nas.recipe import Recipe
from nas.soft_labels import soft_labels
from nas.teachers import Teacher, checkpoint_teacher, load_teacher, module_teacher
from nas.training import train
from tests.nas.learning import shapes, small

DATA = shapes()
BRIEF = Recipe(epochs=2, batch_size=16, lr=0.05)
CHANGES = Augmentation(crop_px=1, changes=2)


@pytest.fixture(scope="module")
def taught() -> Checkpoint:
    return train(small(), DATA, Recipe(epochs=8, batch_size=16, lr=0.1, flip=False)).checkpoint


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def counting(teacher: Teacher) -> tuple[Teacher, list[int]]:
    """The teacher, and how many images it is asked about each time."""
    asked: list[int] = []

    def answer(images: Tensor) -> Tensor:
        asked.append(len(images))
        return teacher.answer(images)

    return dataclasses.replace(teacher, answer=answer), asked


def test_loss_is_the_textbooks(taught: Checkpoint) -> None:
    logits, answers, hard = torch.randn(6, 4), torch.randn(6, 4), torch.tensor(1.5)
    teacher = checkpoint_teacher(taught)
    softened = Distillation(teacher, weight=0.3, temperature=4.0)
    p = F.softmax(answers / 4, dim=1)
    q = F.softmax(logits / 4, dim=1)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(softened.loss(hard, logits, answers), 0.7 * hard + 0.3 * 16 * divergence)
    assert float(Distillation(teacher, weight=1.0).loss(hard, answers, answers)) == pytest.approx(0, abs=1e-6)
    mixed = 0.75 * p + 0.25 * p.roll(1, 0)
    divergence = (mixed * (mixed.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(softened.loss(hard, logits, answers, share=0.75), 0.7 * hard + 0.3 * 16 * divergence)


def test_students_see_what_the_teacher_saw(taught: Checkpoint) -> None:
    """Whatever the student's seed and batches, an image's soft label is what the teacher says of that very image."""
    teacher = checkpoint_teacher(taught)
    soft = soft_labels(teacher, DATA, CHANGES, replicas=3)
    for seed in (0, 1):
        batches = Batches(split=DATA.train, data=DATA, batch_size=7, augment=CHANGES, seed=seed, replicas=3)
        for images, _, answers in batches.taught(soft.replicas, start=50, images=4 * len(DATA.train)):
            said = teacher.logits(images, DATA)
            torch.testing.assert_close(answers.float().softmax(1), said.softmax(1), atol=2e-3, rtol=0)


def test_a_teacher_is_asked_once(taught: Checkpoint) -> None:
    teacher, asked = counting(checkpoint_teacher(taught))
    distillation = Distillation(teacher, replicas=2)
    first = train(small(), DATA, dataclasses.replace(BRIEF, epochs=4), distillation=distillation)
    assert sum(asked) == 2 * len(DATA.train)
    assert sum(asked) == 2 * len(DATA.train)
    again = train(small(), DATA, dataclasses.replace(BRIEF, epochs=4), distillation=distillation)
    assert sum(asked) == 2 * len(DATA.train), "asked again"
    assert first.losses == again.losses
    train(small(), DATA, BRIEF, distillation=dataclasses.replace(distillation, replicas=3), skip_images=0, seed=1)
    assert sum(asked) == 2 * len(DATA.train), "two epochs need two replicas, whatever the seed"


def test_an_interrupted_teacher_goes_on(taught: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.soft_labels.CHUNK", 20)
    teacher, asked = counting(checkpoint_teacher(taught))
    whole = soft_labels(teacher, DATA, CHANGES, replicas=2, folder=tmp_path / "whole")
    answered = sum(asked)

    class Killed(BaseException): ...

    def dying(images: Tensor) -> Tensor:
        if sum(asked) - answered >= 100:
            raise Killed
        return teacher.answer(images)

    with pytest.raises(Killed):
        soft_labels(dataclasses.replace(teacher, answer=dying), DATA, CHANGES, replicas=2, folder=tmp_path / "part")
    part = soft_labels(teacher, DATA, CHANGES, replicas=2, folder=tmp_path / "part")
    assert sum(asked) == 2 * answered, "what was answered has been asked again"
    assert not part.notes
    for one, other in zip(whole.replicas, part.replicas, strict=True):
        assert torch.equal(one, other)


def test_on_a_full_disk_what_was_answered_is_kept_and_the_rest_is_one_line(
    taught: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.soft_labels.CHUNK", 30)
    teacher, asked = counting(checkpoint_teacher(taught))
    write = nas.soft_labels._write

    def full(file: BinaryIO, offset: int, content: bytes) -> None:
        if offset:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, offset, content)

    with monkeypatch.context() as patched:
        patched.setattr("nas.soft_labels._write", full)
        with pytest.raises(TrainingError, match=r"cannot be kept there \(No space left on device\); free it"):
            soft_labels(teacher, DATA, CHANGES, replicas=1, folder=tmp_path / "full")
    soft = soft_labels(teacher, DATA, CHANGES, replicas=1, folder=tmp_path / "full")
    assert sum(asked) == len(DATA.train) + 30, "the first chunk has been asked again"
    whole = soft_labels(teacher, DATA, CHANGES, replicas=1, folder=tmp_path / "whole")
    assert torch.equal(soft.replicas[0], whole.replicas[0])
    assert not soft.notes


@pytest.mark.parametrize("what", ["labels", "length", "journal"])
def test_a_damaged_cache_is_made_again_and_said(taught: Checkpoint, tmp_path: Path, what: str) -> None:
    teacher, asked = counting(checkpoint_teacher(taught))

    def ask() -> tuple[Tensor, tuple[str, ...]]:
        soft = soft_labels(teacher, DATA, CHANGES, replicas=1, folder=tmp_path)
        return soft.replicas[0].clone(), soft.notes

    before, notes = ask()
    assert notes == ()
    (path,) = tmp_path.glob("*/replica-000.f16")
    content = path.read_bytes()
    if what == "journal":
        path.with_suffix(".json").write_text("[")
    else:
        path.write_bytes(content[:99] + b"?" + content[100:] if what == "labels" else content[:-100])
    asked.clear()
    again, notes = ask()
    assert sum(asked) == len(DATA.train)
    assert "was damaged: the teacher has been asked again" in notes[0]
    assert torch.equal(again, before)
    assert ask()[1] == ()


def test_a_file_of_ours_teaches_as_its_checkpoint(taught: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "teacher.pt", taught)
    export_onnx(taught, tmp_path / "teacher.onnx", images=first_images(DATA.test, DATA), batch=4)
    images = first_images(DATA.test, DATA, images=10)
    answers = [load_teacher(str(tmp_path / name)).logits(images, DATA) for name in ("teacher.pt", "teacher.onnx")]
    torch.testing.assert_close(*answers, atol=1e-4, rtol=1e-4)


class Bright(nn.Module):
    """Of colour images at another resolution and normalisation, configured as timm's models are."""

    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "input_size": (3, 16, 16)}  # noqa: RUF012

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 16, 16)
        return images.mean((2, 3))


def bright() -> nn.Module:
    return Bright()


def test_a_module_by_a_hook() -> None:
    teacher = load_teacher("tests.nas.test_distillation:bright")
    images = first_images(DATA.test, DATA, images=10)
    level = (DATA.test.images[:10].float() / 255).mean((2, 3)).expand(-1, 3)
    torch.testing.assert_close(teacher.logits(images, DATA), (level - 0.5) / 0.25, atol=1e-4, rtol=1e-4)


def test_distilled_training_resumes_bit_by_bit(taught: Checkpoint, tmp_path: Path) -> None:
    distillation = Distillation(checkpoint_teacher(taught), replicas=2)
    recipe = dataclasses.replace(BRIEF, epochs=3, mixup=0.4, cutmix=1.0, rand_augment=2)
    undisturbed = train(small(), DATA, recipe, distillation=distillation)
    asked = iter(range(100))
    state = tmp_path / "state.pt"
    train(small(), DATA, recipe, distillation=distillation, state_file=state, stop=lambda: next(asked) == 6)
    resumed = train(small(), DATA, recipe, distillation=distillation, state_file=state)
    assert resumed.losses == undisturbed.losses
    assert all(torch.equal(resumed.checkpoint.state[name], one) for name, one in undisturbed.checkpoint.state.items())


def test_a_student_comes_closer_to_its_teacher(taught: Checkpoint) -> None:
    images = (DATA.test.images.float() / 255 - 0.4) / 0.2
    recipe = Recipe(epochs=4, batch_size=16, lr=0.05, flip=False)

    def distance(distillation: Distillation | None) -> float:
        student = train(small(), DATA, recipe, seed=3, distillation=distillation).checkpoint
        with torch.inference_mode():
            shares = [one.network()(images).softmax(1) for one in (student, taught)]
        return float((shares[0] - shares[1]).abs().mean())

    assert distance(Distillation(checkpoint_teacher(taught), weight=1.0, temperature=1.0)) < distance(None)


def test_a_state_of_another_distillation_is_refused(taught: Checkpoint, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    teacher = Distillation(checkpoint_teacher(taught))
    first = train(small(), DATA, BRIEF, state_file=state, distillation=teacher)
    again = train(small(), DATA, BRIEF, state_file=state, distillation=dataclasses.replace(teacher))
    assert first.losses == again.losses
    for other in (None, dataclasses.replace(teacher, weight=0.1)):
        with pytest.raises(CheckpointError, match="holds another training"):
            train(small(), DATA, BRIEF, state_file=state, distillation=other)


def linear(outputs: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))


def needs(name: str) -> nn.Module:
    raise AssertionError(name)


def away() -> nn.Module:
    raise URLError("Name or service\nnot known")


class Tupled(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.mean((2, 3)),)


def onnx_file(path: Path, *, shape: list[object], kind: int = onnx.TensorProto.FLOAT) -> Path:
    """A model that flattens its input, with metadata that means something to another program."""
    take = onnx.helper.make_tensor_value_info("x", kind, shape)
    give = onnx.helper.make_tensor_value_info("y", kind, None)
    graph = onnx.helper.make_graph([onnx.helper.make_node("Flatten", ["x"], ["y"])], "g", [take], [give])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    onnx.helper.set_model_props(model, {"classes": "cat,dog", "input": "[3]"})
    path.write_bytes(model.SerializeToString())
    return path


def test_teachers_that_do_not_fit_are_refused(taught: Checkpoint, tmp_path: Path) -> None:
    other = dataclasses.replace(DATA, classes=("left", "right", "bottom"))
    with pytest.raises(TrainingError, match="must have the data's classes, left, right, bottom, got left, right, top"):
        soft_labels(checkpoint_teacher(taught), other, None, replicas=1)
    with pytest.raises(TrainingError, match="must tell the data's 3 classes apart, got outputs of shape"):
        soft_labels(module_teacher(linear(5)(), name="five"), DATA, None, replicas=1)
    (tmp_path / "no.onnx").write_bytes(b"no model")
    for source, message in (
        (str(tmp_path / "no.onnx"), "must be an ONNX model"),
        (str(tmp_path / "none.onnx"), "must be a readable file"),
        ("no.such.module:function", "must be a checkpoint, an ONNX file or a function"),
        ("tests.nas.learning:small", "must return a torch module, got Architecture"),
        ("tests.nas.test_distillation:needs", "called without arguments, got: TypeError: needs"),
        ("tests.nas.test_distillation:away", "got: URLError: <urlopen error Name or service not known>"),
        (str(onnx_file(tmp_path / "a.onnx", shape=[1, 8, 8])), r"one float32 input \(N, C, R, R\), got tensor"),
        (
            str(onnx_file(tmp_path / "b.onnx", shape=["n", "h", "w", 3], kind=onnx.TensorProto.UINT8)),
            r"must have one float32 input \(N, C, R, R\), got tensor\(uint8\)",
        ),
        (str(onnx_file(tmp_path / "c.onnx", shape=[1, 1, 8, 9])), "must take square images"),
    ):
        with pytest.raises(TrainingError, match=message) as caught:
            load_teacher(source)
        assert "\n" not in str(caught.value)


def test_teachers_that_cannot_answer_are_refused_before_they_are_needed(taught: Checkpoint, tmp_path: Path) -> None:
    checkpoint_teacher(taught).try_on(DATA)
    colour = dataclasses.replace(DATA, channels=3, mean=DATA.mean * 3, std=DATA.std * 3)
    for teacher, data, message in (
        (checkpoint_teacher(taught), colour, "a teacher of images of 3 channels is needed, got one of 1"),
        (
            load_teacher(str(onnx_file(tmp_path / "a.onnx", shape=[1, 5, 8, 8]))),
            DATA,
            "of 1 channels is needed, got one of 5",
        ),
        (
            load_teacher(str(onnx_file(tmp_path / "b.onnx", shape=[1, 3, 8, 8]))),
            DATA,
            "3 classes apart, got outputs of",
        ),
        (
            load_teacher(str(onnx_file(tmp_path / "c.onnx", shape=[1, "c", 9, "w"]))),
            DATA,
            "3 classes apart, got outputs of",
        ),
        (
            module_teacher(nn.Conv2d(3, 3, 1), name="conv"),
            DATA,
            r"must answer images of shape \(1, 1, 8, 8\), got: Runtime",
        ),
        (module_teacher(Tupled(), name="tupled"), DATA, "must tell the data's 3 classes apart, got tuple"),
    ):
        with pytest.raises(TrainingError, match=message) as caught:
            teacher.try_on(data)
        assert "\n" not in str(caught.value)
    grey = onnx_file(tmp_path / "grey.onnx", shape=["n", 3, 1, 1])
    assert load_teacher(str(grey)).logits(torch.zeros(2, 1, 8, 8), DATA).shape == (2, 3), "grey images as colour ones"


def test_refusals(taught: Checkpoint) -> None:
    teacher = checkpoint_teacher(taught)
    with pytest.raises(TrainingError, match=r"in \[0, 1\], got 2"):
        Distillation(teacher, weight=2.0)
    with pytest.raises(TrainingError, match="above 0, got 0"):
        Distillation(teacher, temperature=0.0)
    with pytest.raises(TrainingError, match="at least 1 replica, got 0"):
        Distillation(teacher, replicas=0)


def test_changes_of_a_training_without_a_teacher_differ_every_epoch() -> None:
    """Replicas are for teachers only."""
    changes = augmentation(Recipe(epochs=1, rand_augment=1), DATA)
    batches = Batches(split=DATA.train, data=DATA, batch_size=80, augment=changes, shuffle=False)
    assert not torch.equal(next(batches.epoch(0))[0], next(batches.epoch(1))[0])

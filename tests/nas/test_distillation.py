"""Distillation: the loss is the textbook's, it changes training, and a training state knows of it."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nas.distillation import Distillation
from nas.errors import CheckpointError, TrainingError
from nas.recipe import Recipe
from nas.training import train
from tests.nas.learning import shapes, small

DATA = shapes()
BRIEF = Recipe(epochs=2, batch_size=16, lr=0.05)


def test_loss_is_the_textbooks() -> None:
    logits, taught = torch.randn(6, 4), torch.randn(6, 4)
    hard = torch.tensor(1.5)
    teacher = train(small(), DATA, BRIEF).checkpoint
    softened = Distillation(teacher, weight=0.3, temperature=4.0)
    p = F.softmax(taught / 4, dim=1)
    divergence = (p * (p.log() - F.softmax(logits / 4, dim=1).log())).sum(1).mean()
    torch.testing.assert_close(softened.loss(hard, logits, taught), 0.7 * hard + 0.3 * 16 * divergence)
    assert float(Distillation(teacher, weight=1.0).loss(hard, taught, taught)) == pytest.approx(0, abs=1e-6)


def test_a_student_comes_closer_to_its_teacher() -> None:
    teacher = train(small(), DATA, Recipe(epochs=8, batch_size=16, lr=0.1, flip=False)).checkpoint
    images = (DATA.test.images.float() / 255 - 0.4) / 0.2
    recipe = Recipe(epochs=4, batch_size=16, lr=0.05, flip=False)

    def distance(distillation: Distillation | None) -> float:
        student = train(small(), DATA, recipe, seed=3, distillation=distillation).checkpoint
        with torch.inference_mode():
            shares = [one.network()(images).softmax(1) for one in (student, teacher)]
        return float((shares[0] - shares[1]).abs().mean())

    assert distance(Distillation(teacher, weight=1.0, temperature=1.0)) < distance(None)


def test_a_state_of_another_distillation_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    teacher = train(small(), DATA, BRIEF).checkpoint
    taught = Distillation(teacher)
    first = train(small(), DATA, BRIEF, state_file=state, distillation=taught)
    again = train(small(), DATA, BRIEF, state_file=state, distillation=Distillation(teacher))
    assert first.losses == again.losses
    for other in (None, dataclasses.replace(taught, weight=0.1)):
        with pytest.raises(CheckpointError, match="holds another training"):
            train(small(), DATA, BRIEF, state_file=state, distillation=other)


def test_refusals() -> None:
    teacher = train(small(), DATA, BRIEF).checkpoint
    with pytest.raises(TrainingError, match=r"in \[0, 1\], got 2"):
        Distillation(teacher, weight=2.0)
    with pytest.raises(TrainingError, match="above 0, got 0"):
        Distillation(teacher, temperature=0.0)

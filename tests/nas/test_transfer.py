"""Weights go on to other data with all they have learned, and to the data they know unchanged."""

import dataclasses

import pytest
import torch

from nas.checkpoint import Checkpoint
from nas.data import Data
from nas.deployment import random_checkpoint
from nas.errors import DataError, TrainingError
from nas.evaluation import as_trained
from nas.recipe import Recipe
from nas.training import train
from nas.transfer import CLASSIFIER, adapt
from tests.nas.learning import shapes, small

DATA = shapes()


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return train(small(), DATA, Recipe(images=32, batch_size=16)).checkpoint


def renamed(*classes: str) -> Data:
    return dataclasses.replace(DATA, classes=classes)


def changed(before: Checkpoint, after: Checkpoint) -> set[str]:
    return {name for name, tensor in before.state.items() if not torch.equal(tensor, after.state[name])}


def test_the_same_classes_keep_everything(checkpoint: Checkpoint) -> None:
    adapted = adapt(checkpoint, DATA)
    assert adapted.architecture == checkpoint.architecture
    assert not changed(checkpoint, adapted)


def test_other_classes_start_the_classifier_anew(checkpoint: Checkpoint) -> None:
    adapted = adapt(checkpoint, renamed("x", "y", "z"), seed=1)
    assert changed(checkpoint, adapted) == {f"{CLASSIFIER}weight", f"{CLASSIFIER}bias"}
    assert not changed(adapted, adapt(checkpoint, renamed("x", "y", "z"), seed=1))
    assert changed(adapted, adapt(checkpoint, renamed("x", "y", "z"), seed=2))


def test_another_number_of_classes_and_another_resolution(checkpoint: Checkpoint) -> None:
    data = dataclasses.replace(renamed("a", "b", "c", "d", "e"), resolution=12)
    adapted = adapt(checkpoint, data)
    assert (adapted.architecture.classes, adapted.architecture.resolution) == (5, 12)
    assert adapted.classes == data.classes
    assert adapted.network()(torch.zeros(2, 1, 12, 12)).shape == (2, 5)


def test_classes_without_names_are_kept_if_their_number_fits() -> None:
    nameless = random_checkpoint(small())
    assert not changed(nameless, adapt(nameless, DATA))


def test_other_channels_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(TrainingError, match="for images of 1 channels, got 3; train its architecture from scratch"):
        adapt(checkpoint, dataclasses.replace(DATA, channels=3))


def test_images_are_normalised_as_in_training(checkpoint: Checkpoint) -> None:
    other = dataclasses.replace(DATA, mean=(0.9,), std=(0.1,))
    assert (as_trained(other, checkpoint).mean, as_trained(other, checkpoint).std) == (DATA.mean, DATA.std)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (renamed("x", "y", "z"), "the network's, left, right, top, got x, y, z"),
        (renamed(*map(str, range(9))), r"got 0, 1, 2, 3, 4 … \(9\)"),
        (dataclasses.replace(DATA, resolution=16), "images of 8 px and 1 channels are needed, got 16 px"),
    ],
)
def test_other_data_is_refused(checkpoint: Checkpoint, data: Data, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_trained(data, checkpoint)

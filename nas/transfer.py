"""Weights for other data: what a network has learned is kept, only its classifier starts anew."""

import dataclasses

import torch

from nas.checkpoint import Checkpoint, DataRecord
from nas.data import Data
from nas.errors import TrainingError
from searchspace.network import Network

CLASSIFIER = "head.classifier."


def adapt(checkpoint: Checkpoint, data: Data, *, seed: int = 0) -> Checkpoint:
    """The checkpoint as a start for training on `data`: at its resolution, with its classes.

    The classifier is kept if the classes are the same ones (or of the same number, where the checkpoint's have no names); else it
    is drawn anew from the seed.

    Raises:
        TrainingError: the channels differ.
    """
    if checkpoint.architecture.channels != data.channels:
        raise TrainingError(
            f"{data.name}: the checkpoint's weights are for images of {checkpoint.architecture.channels} channels, "
            f"got {data.channels}; train its architecture from scratch"
        )
    architecture = dataclasses.replace(checkpoint.architecture, resolution=data.resolution, classes=len(data.classes))
    known = checkpoint.classes or data.classes
    state = dict(checkpoint.state)
    if architecture.classes != checkpoint.architecture.classes or known != data.classes:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            fresh = Network(architecture).state_dict()
        state |= {name: tensor for name, tensor in fresh.items() if name.startswith(CLASSIFIER)}
    return dataclasses.replace(
        checkpoint, architecture=architecture, state=state, classes=data.classes, data=DataRecord.of(data)
    )

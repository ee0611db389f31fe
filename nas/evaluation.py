"""How good a network is on one split."""

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nas.checkpoint import Checkpoint
from nas.data import Batches, Data, Split
from nas.errors import DataError
from searchspace.network import Network


@dataclass(frozen=True)
class Evaluation:
    """Result on one split: share of images whose likeliest class is right, mean cross-entropy (nats), number of images."""

    accuracy: float
    loss: float
    images: int


@torch.inference_mode()
def evaluate(network: Network, split: Split, data: Data, *, batch_size: int = 256) -> Evaluation:
    """Judge a network, in float32 and without augmentation, on the device it is on; its mode is left as it was.

    Args:
        network: the network.
        split: the images; `data` says how they are normalised.
        data: the data set of the split.
        batch_size: images at a time; the result does not depend on it beyond rounding.
    """
    device = next(network.parameters()).device
    batches = Batches(split=split, data=data, batch_size=batch_size, shuffle=False, device=device)
    was_training = network.training
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=device)
    right = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in batches.epoch():
        logits = network(images)
        loss += F.cross_entropy(logits, labels, reduction="sum")
        right += (logits.argmax(1) == labels).sum()
    network.train(was_training)
    return Evaluation(accuracy=right.item() / len(split), loss=loss.item() / len(split), images=len(split))


def as_trained(data: Data, checkpoint: Checkpoint) -> Data:
    """The data with images normalised as when the network was trained.

    Raises:
        DataError: the data's classes, channels or resolution are not the network's.
    """
    architecture = checkpoint.architecture
    if (data.channels, data.resolution) != (architecture.channels, architecture.resolution):
        raise DataError(
            f"{data.name}: images of {architecture.resolution} px and {architecture.channels} channels are needed, "
            f"got {data.resolution} px and {data.channels}"
        )
    if data.classes != checkpoint.classes and (checkpoint.classes or len(data.classes) != architecture.classes):
        wanted = _some(checkpoint.classes) if checkpoint.classes else f"{architecture.classes} of them"
        raise DataError(f"{data.name}: the classes must be the network's, {wanted}, got {_some(data.classes)}")
    return dataclasses.replace(data, mean=checkpoint.data.mean, std=checkpoint.data.std)


def _some(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:5]) + (f" … ({len(classes)})" if len(classes) > 5 else "")

"""How good a network is on one split."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nas.data import Data, Split
from nas.data.batches import Batches
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

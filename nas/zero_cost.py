"""Scores of networks that were never trained. Often no better than counting parameters: a search says so where it is."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from latency.host import computing
from nas.data import Batches, Data
from nas.fidelity import ZeroCost
from searchspace.architecture import Architecture, lower
from searchspace.network import Network

IMAGES = 64
LEAST = -1e9  # in place of minus infinity, which storages do not take
ACTIVATIONS = ("relu", "relu_", "relu6", "hardswish", "silu", "gelu")


def zero_cost_score(name: ZeroCost, architecture: Architecture, data: Data, *, seed: int = 0) -> tuple[float, float]:
    """A score of the untrained network, more is better, and the seconds that it took.

    * ``params``, ``macs``: the network's size.
    * ``synflow``: how much the output of the network with absolute weights, of an image of ones, depends on the weights; its
      logarithm (Tanaka et al., arXiv 2006.05467; as a score: Abdelfattah et al., arXiv 2101.08134).
    * ``naswot``: how differently 64 training images switch the activations (Mellor et al., arXiv 2006.04647).
    """
    with computing("scoring a network"):
        began = time.perf_counter()
        graph = lower(architecture)
        match name:
            case "params":
                value = float(graph.params)
            case "macs":
                value = float(graph.macs)
            case "synflow":
                value = synflow(architecture, seed=seed)
            case "naswot":
                batches = Batches(split=data.train, data=data, batch_size=IMAGES, seed=seed)
                images, _ = next(batches.stream(start=0, images=IMAGES))
                value = naswot(architecture, images, seed=seed)
        return max(value, LEAST), time.perf_counter() - began


def synflow(architecture: Architecture, *, seed: int = 0) -> float:
    """Logarithm of the summed products of weights and their gradients; normalisations pass their input on unchanged."""
    network = _fresh(architecture, seed).double().eval()  # running statistics of 0 and 1: nothing is normalised
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    output = network(torch.ones(1, *architecture.input_shape, dtype=torch.float64)).sum()
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    gradients = torch.autograd.grad(output, weights)
    products = [(weight * gradient).sum() for weight, gradient in zip(weights, gradients, strict=True)]
    return torch.stack(products).sum().log().item()


def naswot(architecture: Architecture, images: Tensor, *, seed: int = 0) -> float:
    """Logarithm of the determinant of the images' agreement: at how many places two of them switch an activation alike.

    Args:
        architecture: the network.
        images: (N, C, H, W), normalised.
        seed: of the random start.
    """
    network = _fresh(architecture, seed).train()
    codes = _Codes()
    with torch.random.fork_rng([]), torch.no_grad(), codes:  # dropout draws
        network(images)
    if codes.agreement is None:
        return LEAST
    return float(torch.linalg.slogdet(codes.agreement).logabsdet)


class _Codes(TorchFunctionMode):
    """Counts, for every two images of a batch, the places where activations are on for both or off for both."""

    def __init__(self) -> None:
        super().__init__()
        self.agreement: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ACTIVATIONS:
            on = (args[0] > 0).flatten(1).double()
            alike = on @ on.T + (1 - on) @ (1 - on).T
            self.agreement = alike if self.agreement is None else self.agreement + alike
        return func(*args, **(kwargs or {}))


def _fresh(architecture: Architecture, seed: int) -> Network:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return Network(architecture)

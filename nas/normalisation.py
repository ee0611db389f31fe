"""Running statistics of normalisations after trimming, made right without training.

Where channels go, what the layers after them sum up varies less, and a normalisation that still divides by the old deviation
shrinks it: networks would be compared by how soon training forgets that, not by what was cut. How a few images' means and
variances change from the wide network to the narrow one is applied to the running statistics, layer by layer, so what no cut
reaches stays as it is. That such networks rank as fine-tuned ones do is from EagleEye (arXiv 2007.02491).
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nas.checkpoint import Checkpoint


@torch.no_grad()
def observed(checkpoint: Checkpoint, images: Tensor) -> Checkpoint:
    """The network with the means and variances of these images (N, C, H, W), normalised, for its running statistics."""
    found: dict[str, Tensor] = {}

    def look(name: str, _: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
        found[f"{name}.running_mean"], found[f"{name}.running_var"] = mean, variance

    _watch(checkpoint, images, look)
    return dataclasses.replace(checkpoint, state={**checkpoint.state, **found})


@torch.no_grad()
def renormalised(narrow: Checkpoint, expected: Checkpoint, images: Tensor) -> Checkpoint:
    """A trimmed network with running statistics that fit what it computes.

    Args:
        narrow: the trimmed network.
        expected: what `observed` made of the wide one, trimmed alike.
        images: the same as for `observed`.
    """
    changed: dict[str, Tensor] = {}

    def correct(name: str, norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean += mean - expected.state[f"{name}.running_mean"]
        norm.running_var *= (variance + norm.eps) / (expected.state[f"{name}.running_var"] + norm.eps)
        for key in ("running_mean", "running_var"):
            changed[f"{name}.{key}"] = getattr(norm, key).clone()

    _watch(narrow, images, correct)
    return dataclasses.replace(narrow, state={**narrow.state, **changed})


def _watch(checkpoint: Checkpoint, images: Tensor, saw: Callable[[str, nn.BatchNorm2d, Tensor, Tensor], None]) -> None:
    """Tell of every normalisation, in the order they compute, what comes in; what is changed then counts already."""
    network = checkpoint.network().eval()
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):

            def before(module: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                assert isinstance(module, nn.BatchNorm2d)
                variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
                saw(name, module, mean, variance)

            module.register_forward_pre_hook(before)
    network(images)

"""What a recipe means: optimiser, learning rate, augmentation and number format."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.data import Augmentation, Data, default_augmentation
from nas.data.mixing import Mixing
from nas.recipe import Precision, Recipe
from searchspace.architecture import Architecture

START = (
    1 / 25
)  # of the highest learning rate, where a cycle begins (Smith and Topin, arXiv 1708.07120; torch's OneCycleLR)
END = START / 1e4  # where it ends


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser, in torch's fused form, over the groups of `parameter_groups`."""
    groups = parameter_groups(network, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=True)
    nesterov = recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)


def parameter_groups(network: nn.Module, *, weight_decay: float) -> list[dict[str, object]]:
    """Two groups: weights of convolutions and linear layers decay; vectors (biases, normalisations, gammas) do not."""
    parameters = list(network.parameters())
    return [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]


def learning_rate(recipe: Recipe, step: int, *, steps: int) -> float:
    """Learning rate of a step, counted from 0, of `steps` in all: a pure function, so there is no state to lose."""
    peak = recipe.warm_up * steps - 1  # the step at which it is highest
    rising = step < peak
    share = step / peak if rising else (step - max(peak, 0)) / max(steps - 1 - max(peak, 0), 1)
    match recipe.schedule:
        case "one_cycle":
            return recipe.lr * (_along_cosine(START, 1, share) if rising else _along_cosine(1, END, share))
        case "cosine":
            return recipe.lr * ((step + 1) / (peak + 1) if rising else _along_cosine(1, 0, share))
        case "constant":
            return recipe.lr * ((step + 1) / (peak + 1) if rising else 1)


def augmentation(recipe: Recipe, data: Data) -> Augmentation | None:
    """How training images are changed; None for not at all."""
    flip = default_augmentation(data).flip if recipe.flip is None else recipe.flip
    changes = Augmentation(crop_px=recipe.crop_px, flip=flip, changes=recipe.rand_augment, magnitude=recipe.magnitude)
    return changes if flip or changes.margin_px(data.resolution) or changes.changes else None


def mixing(recipe: Recipe) -> Mixing | None:
    """How the images of a batch are mixed; None for not at all."""
    return Mixing(recipe.mixup, recipe.cutmix) if recipe.mixup or recipe.cutmix else None


def class_weights(recipe: Recipe, data: Data) -> Tensor | None:
    """Weight of every class in the loss, (K,), so that each counts alike; None for all images alike."""
    if not recipe.balance:
        return None
    counts = torch.tensor(data.class_counts, dtype=torch.float32)
    return len(data.train) / (len(counts) * counts.clamp_min(1))


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None, *, smoothing: float = 0.0) -> Tensor:
    """Mean over a batch, every image's loss times the weight of its class.

    (Torch's own mean divides by the batch's weights: a rare class would count less in a batch that has more of it.)

    Args:
        logits: (B, K).
        labels: int64, (B,).
        weights: of the classes, (K,); None for all alike.
        smoothing: share of the target that is spread over all classes.
    """
    if weights is None:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return (weights[labels] * F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)).mean()


def with_dropout(architecture: Architecture, recipe: Recipe) -> Architecture:
    """The architecture with the recipe's dropout. Dropout has no tensors: the weights fit the architecture as it was."""
    if recipe.dropout is None:
        return architecture
    return dataclasses.replace(architecture, head=dataclasses.replace(architecture.head, dropout=recipe.dropout))


def number_format(precision: Precision, device: torch.device) -> torch.dtype | None:
    """What forward and backward compute in under autocast; None is float32 throughout."""
    if precision == "auto":
        if device.type != "cuda":
            return None  # bf16 on a CPU without instructions for it is many times slower
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _along_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

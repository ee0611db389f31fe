"""Batch normalisations without statistics of their own: half as many numbers to store that no coding makes smaller."""

import dataclasses

import numpy as np
import torch

from nas.checkpoint import Checkpoint
from searchspace.architecture import lower
from searchspace.graph import Conv, Norm, Normalize


def settled(checkpoint: Checkpoint) -> Checkpoint:
    """The same network in use, with mean 0 and variance 1 in every normalisation, and factor and offset changed to match.

    In training the normalisations work with each batch's own statistics, so it can be trained on as before.
    """
    state = dict(checkpoint.state)
    for name, norm in _norms(checkpoint):
        mean, variance, weight, bias = (
            state[f"{name}.{part}"].double() for part in ("running_mean", "running_var", "weight", "bias")
        )
        scale = weight / torch.sqrt(variance + norm.epsilon)
        state |= {
            f"{name}.weight": (scale * np.sqrt(1 + norm.epsilon)).float(),
            f"{name}.bias": (bias - mean * scale).float(),
            f"{name}.running_mean": torch.zeros_like(mean, dtype=torch.float32),
            f"{name}.running_var": torch.ones_like(variance, dtype=torch.float32),
        }
    return dataclasses.replace(checkpoint, state=state)


def _norms(checkpoint: Checkpoint) -> list[tuple[str, Norm]]:
    """Name of each normalisation in the state, and what it is."""
    found = []
    for op in lower(checkpoint.architecture).ops:
        if isinstance(op, Conv) and op.norm:
            found.append((f"{op.name}.norm", op.norm))
        elif isinstance(op, Normalize):
            found.append((op.name, op.norm))
    return found

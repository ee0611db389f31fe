"""Weight sharing: k-means over each layer's weights, and codebooks that are fine-tuned while the sharing stays.

A weight's gradient moves its centroid. The paper sums the gradients of a centroid's weights; here they are averaged, which is the
same direction at a step that does not grow with the size of the cluster, so that an ordinary learning rate serves every layer.
"""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nas.checkpoint import Checkpoint
from nas.compression.magnitude import Layer
from nas.errors import CompressionError
from searchspace.network import Network

BITS = range(1, 9)


@dataclass(frozen=True, eq=False)
class Shared:
    """Keeps weights of one code equal, and pruned ones at zero, while training (see `nas.training.Constraint`).

    `codes` holds for each layer its weights' codes, −1 where pruned, int64 in the tensor's shape.
    """

    codes: Mapping[str, Tensor]

    @property
    def identity(self) -> str:
        """Of the codes."""
        digest = hashlib.blake2b(digest_size=8)
        for name, codes in sorted(self.codes.items()):
            digest.update(name.encode() + codes.numpy().tobytes())
        return f"shared {digest.hexdigest()}"

    @torch.no_grad()
    def apply(self, network: Network) -> None:
        """Set each weight to the mean of those that share its code."""
        parameters = dict(network.named_parameters())
        for name, codes in self.codes.items():
            weights = parameters[name]
            place = codes.to(weights.device)
            clusters = int(codes.max()) + 1
            kept = place >= 0
            flat = place[kept]
            sums = torch.zeros(clusters, dtype=torch.float64, device=weights.device)
            sums.index_add_(0, flat, weights[kept].double())
            counts = torch.bincount(flat, minlength=clusters).clamp(min=1)
            centroids = (sums / counts).to(weights.dtype)
            weights.masked_fill_(~kept, 0.0)
            weights[kept] = centroids[flat]


def share(
    checkpoint: Checkpoint,
    found: tuple[Layer, ...],
    *,
    conv_bits: int,
    linear_bits: int,
    on_layer: Callable[[int], None] = lambda done: None,
) -> Shared:
    """Codes for the non-zero weights of each layer, by k-means from evenly spaced centroids (the paper's linear start).

    Args:
        checkpoint: the pruned network.
        found: its layers that are shared.
        conv_bits: of a code of a convolution, 1 to 8.
        linear_bits: of a linear layer.
        on_layer: told how many layers are done, before each.

    Raises:
        CompressionError: a number of bits is not from 1 to 8.
    """
    for option, bits in (("--conv-bits", conv_bits), ("--linear-bits", linear_bits)):
        if bits not in BITS:
            raise CompressionError(f"{option} must be from {BITS.start} to {BITS.stop - 1}, got {bits}")
    codes = {}
    for done, layer in enumerate(found):
        on_layer(done)
        weights = checkpoint.state[layer.name]
        kept = weights != 0
        clusters = (1 << (linear_bits if layer.linear else conv_bits)) - 1  # 0 is a value of its own
        labels = torch.full(weights.shape, -1, dtype=torch.int64)
        labels[kept] = torch.from_numpy(_clustered(weights[kept].numpy(), clusters))
        codes[layer.name] = labels
    return Shared(codes)


def _clustered(values: np.ndarray, clusters: int) -> np.ndarray:
    """The cluster of each value."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    distinct = np.unique(values)
    if len(distinct) <= clusters:
        return np.searchsorted(distinct, values).astype(np.int64)
    start = np.linspace(values.min(), values.max(), clusters, dtype=np.float64)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(n_clusters=clusters, init=start, n_init=1, random_state=0).fit(
            values.astype(np.float64)[:, None]
        )
    return np.asarray(fitted.labels_, dtype=np.int64)

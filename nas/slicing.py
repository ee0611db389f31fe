"""From a proposal to its network: the most important units of the step's start stay."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.checkpoint import Checkpoint
from nas.data import Batches, Data
from nas.importance import Importance, magnitude, most_important, taylor
from nas.normalisation import observed, renormalised
from nas.steps import Settings
from nas.trimming import input_means, trim, without_block
from nas.tuning import one_thread

BATCHES, BATCH = 8, 64  # training images, as they are, that importances and means are taken from
NORMALISED = 2  # of these batches, for the statistics of normalisations


@dataclass(frozen=True)
class Slicer:
    """What is needed to cut any proposal out of one network."""

    start: Checkpoint
    importance: Importance
    means: Mapping[str, Tensor]
    images: Tensor
    expected: Checkpoint  # the start with these images' statistics

    @staticmethod
    def of(start: Checkpoint, data: Data, settings: Settings) -> "Slicer":
        """Look at the network and, with a few batches of the training split, at what it does."""
        images = min(BATCHES * BATCH, len(data.train))
        batches = list(
            Batches(split=data.train, data=data, batch_size=BATCH, seed=settings.seed).stream(start=0, images=images)
        )
        with one_thread():
            importance = taylor(start, batches) if settings.importance == "taylor" else magnitude(start)
            means = input_means(start.network(), (batch for batch, _ in batches))
            few = torch.cat([batch for batch, _ in batches[:NORMALISED]])
            return Slicer(start, importance, means, few, observed(start, few))

    def narrowed(self, counts: Mapping[str, int]) -> Checkpoint:
        """The network with so many units of each of these widths."""
        kept = {name: most_important(self.importance[name], count) for name, count in counts.items()}
        return self._fitting(lambda wide: trim(wide, kept, means=self.means))

    def cut(self, counts: Mapping[str, int], dropped: int | None) -> Checkpoint:
        """The network of a proposal."""
        if dropped is None:
            return self.narrowed(counts)
        return self._fitting(lambda wide: without_block(wide, dropped))

    def _fitting(self, change: Callable[[Checkpoint], Checkpoint]) -> Checkpoint:
        """The changed network, with statistics that fit it."""
        with one_thread():
            return renormalised(change(self.start), change(self.expected), self.images)

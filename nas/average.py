"""An exponential moving average of a network's weights: often better than the last weights, and less noisy."""

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from nas.checkpoint import unfilled_network
from searchspace.network import Network

WARM_UP = 10
"""After t steps the decay is at most (1 + t) / (10 + t), so that the random start is soon forgotten (as in TensorFlow)."""


class Average:
    """Average of a network's weights and running statistics, kept in a twin network."""

    def __init__(self, network: Network, *, decay: float, device: torch.device, layout: torch.memory_format) -> None:
        self.network = unfilled_network(network.architecture).to_empty(device=device)
        self.network.to(memory_format=layout)  # type: ignore[call-overload]
        self.network.load_state_dict(network.state_dict())
        self.network.eval()
        self._decay = decay
        mine, theirs = self.network.state_dict(), network.state_dict()  # these share the networks' memory
        averaged = [name for name, tensor in mine.items() if tensor.is_floating_point()]
        self._mine, self._theirs = [mine[name] for name in averaged], [theirs[name] for name in averaged]
        self._counters = [(mine[name], theirs[name]) for name in mine.keys() - set(averaged)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self._decay, (1 + step) / (WARM_UP + step))
        get_ema_multi_avg_fn(decay)(self._mine, self._theirs, None)  # type: ignore[no-untyped-call]
        for mine, theirs in self._counters:
            mine.copy_(theirs)

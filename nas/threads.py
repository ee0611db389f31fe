"""How many threads train a network fastest on this machine now: measured, since a wrong number costs up to sixteen times."""

import time

import torch
import torch.nn.functional as F

from nas.recipe import Recipe
from searchspace.architecture import Architecture
from searchspace.network import Network

ROUNDS, STEPS = 2, 2
PROBE_IMAGES = 16  # at most: enough to keep several threads busy, few enough for large images


def fastest_threads(architecture: Architecture, recipe: Recipe) -> int:
    """One, or as many as torch uses: whichever does forward and backward faster. Restores torch's setting and random state.

    Threads wait for each other after every operator. Where networks are small, or cores are busy with other work, that costs more
    than it gains.
    """
    usual = torch.get_num_threads()
    if usual == 1:
        return 1
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    with torch.random.fork_rng([]):
        network = Network(architecture).train()
        network.to(memory_format=layout)  # type: ignore[call-overload]
        images = torch.randn(min(recipe.batch_size, PROBE_IMAGES), *architecture.input_shape)
        images = images.contiguous(memory_format=layout)
        best = dict.fromkeys((1, usual), float("inf"))
        try:
            for _ in range(ROUNDS):  # taking turns, so that a passing disturbance meets both
                for threads in best:
                    torch.set_num_threads(threads)
                    best[threads] = min(best[threads], *(_step_s(network, images) for _ in range(STEPS)))
        finally:
            torch.set_num_threads(usual)
    return min(best, key=best.__getitem__)


def _step_s(network: Network, images: torch.Tensor) -> float:
    """Seconds of one forward and backward."""
    began = time.perf_counter()
    loss = F.cross_entropy(network(images), torch.zeros(len(images), dtype=torch.int64))
    loss.backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - began

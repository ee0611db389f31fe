"""Normalisations without statistics say the same."""

import torch

from nas.compression.statistics import settled
from nas.deployment import random_checkpoint
from tests.nas.compression.test_container import SMALL


def test_the_network_says_the_same() -> None:
    start = random_checkpoint(SMALL)
    for name, tensor in start.state.items():
        if "norm" in name and tensor.dtype == torch.float32:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=torch.Generator().manual_seed(len(name))))
    after = settled(start)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, said = (one.network().eval()(images) for one in (start, after))
    torch.testing.assert_close(said, wanted, rtol=1e-4, atol=1e-5)
    means = [tensor for name, tensor in after.state.items() if name.endswith("running_mean")]
    assert means
    assert all((tensor == 0).all() for tensor in means)
    assert all((tensor == 1).all() for name, tensor in after.state.items() if name.endswith("running_var"))

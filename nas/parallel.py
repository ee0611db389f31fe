"""Several processes that train one network together: torch's DistributedDataParallel, as `torchrun` starts it.

    torchrun --nproc-per-node 2 -m nas train ARCH --data D

Each process takes its part of every batch; gradients are averaged. The first one judges, saves and speaks.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        local: its number on this machine, which is that of its GPU.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that judges, saves and speaks."""
        return self.rank == 0

    def shared(self, value: T) -> T:
        """What the first process has for `value`."""
        if self.count == 1:
            return value
        box = [value if self.leads else None]
        distributed.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def wrapped(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network as it is called in training: gradients are averaged on the way back."""
        if self.count == 1:
            return network
        return nn.parallel.DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)

    def device(self) -> torch.device:
        """Its GPU, or the CPU where there is none."""
        return torch.device("cuda", self.local) if torch.cuda.is_available() else torch.device("cpu")


ALONE = Ranks()
GRADIENT_STRIDES = "Grad strides do not match bucket view"
"""What torch warns of where weights lie channels-last but have one input channel, so that their layout is a matter of taste."""


def ranks_of_environment() -> Ranks:
    """As `torchrun` says in the environment; alone without it."""
    rank, count, local = (int(os.environ.get(name, default)) for name, default in
                          (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))  # fmt: skip
    return Ranks(rank, count, local)


@contextlib.contextmanager
def joined(ranks: Ranks) -> Iterator[None]:
    """Inside it the processes can talk: by NCCL between GPUs, else by Gloo."""
    if ranks.count == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local)
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", GRADIENT_STRIDES, UserWarning)
            yield
    finally:
        distributed.destroy_process_group()

"""What tests of all packages share: where reference facts and data lie (without them tests skip visibly), and a free port."""

import socket
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
REFERENCE = SHARED / "reference"
CIFAR10 = SHARED / "data" / "cifar10"

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"{REFERENCE} is not there: no reference facts")
needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"{CIFAR10} is not there: no CIFAR-10 to read")


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Where the reference facts and experiment data lie: `shared/` beside the checkout. Tests that need them skip visibly without."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"
REFERENCE = SHARED / "reference"
CIFAR10 = SHARED / "data" / "cifar10"

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"{REFERENCE} is not there: no reference facts")
needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"{CIFAR10} is not there: no CIFAR-10 to read")

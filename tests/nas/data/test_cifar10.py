"""CIFAR-10 as Parquet: a real data set of the size that the work is about."""

import pytest

from nas.data import load_data
from tests.shared import CIFAR10, needs_cifar10

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@needs_cifar10
def test_a_part_of_cifar10() -> None:
    data = load_data(str(CIFAR10), limit=1200)
    assert (data.name, data.resolution, data.channels, data.classes) == ("cifar10", 32, 3, NAMES)
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 100, 200)
    assert data.class_counts == (90,) * 10
    assert data.skipped == ()


@needs_cifar10
@pytest.mark.slow
def test_the_whole_of_cifar10() -> None:
    data = load_data(str(CIFAR10))
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    # the statistics that everyone uses are of all 50,000 training images
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.002)
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.003)

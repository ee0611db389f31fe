"""The closed form of the expected gain is what drawing at random comes to."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.sampling.acquisition import expected_hypervolume_gain, staircase

points = st.lists(st.tuples(st.floats(0.01, 1.5), st.floats(0.1, 0.9)), max_size=8)


def hypervolume(points: list[tuple[float, float]], *, floor: float, limit: float) -> float:
    """Area below the front's staircase and above `floor`, up to `limit`."""
    steps = staircase(((price, accuracy) for price, accuracy in points if price <= limit), floor=floor)
    ends = [step.price for step in steps[1:]] + [limit]
    return sum((end - step.price) * (step.accuracy - floor) for step, end in zip(steps, ends, strict=True))


@given(points, st.floats(0.01, 1.2), st.floats(0.1, 0.9), st.floats(0.01, 0.2))
def test_expected_gain_is_the_mean_of_gains(
    known: list[tuple[float, float]], price: float, mean: float, spread: float
) -> None:
    floor, limit = 0.1, 1.0
    steps = staircase(known, floor=floor)
    gain = expected_hypervolume_gain(np.array([mean]), np.array([spread]), np.array([price]), steps=steps, limit=limit)[
        0
    ]
    drawn = mean + spread * np.random.default_rng(0).normal(size=400)
    before = hypervolume(known, floor=floor, limit=limit)
    gains = [hypervolume([*known, (price, accuracy)], floor=floor, limit=limit) - before for accuracy in drawn]
    assert gain == pytest.approx(np.mean(gains), abs=4 * spread / 20 + 1e-9)


@given(points)
def test_staircase_rises_and_its_area_never_falls_with_more_points(known: list[tuple[float, float]]) -> None:
    steps = staircase(known, floor=0.1)
    assert all(a.price <= b.price and a.accuracy < b.accuracy for a, b in itertools.pairwise(steps))
    areas = [hypervolume(known[:end], floor=0.1, limit=1.0) for end in range(len(known) + 1)]
    assert areas == sorted(areas)


def test_beyond_the_limit_nothing_is_gained() -> None:
    steps = staircase([(0.5, 0.5)], floor=0.1)
    gain = expected_hypervolume_gain(np.array([0.9]), np.array([0.1]), np.array([1.1]), steps=steps, limit=1.0)
    assert gain[0] == 0

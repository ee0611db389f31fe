"""How much a candidate is expected to improve what is known, if its price is certain and its accuracy a normal variable.

A price is a latency, or what `nas.sampling.pricing` makes of the costs that a front is against. Since it needs no trial, the
expected improvement of a front has a closed form: under the front's staircase every step is a level that the candidate has to
exceed, so the hypervolume gained is a sum of ordinary expected improvements, one for each step to the right of the candidate,
weighted by the step's width.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


class Step(NamedTuple):
    """From this price on, this accuracy is known to be reached."""

    price: float
    accuracy: float


def staircase(points: Iterable[tuple[float, float]], *, floor: float) -> list[Step]:
    """Steps of the front of (price, accuracy) points, rising, from price 0 at the accuracy `floor`."""
    steps = [Step(0.0, floor)]
    for price, accuracy in sorted(points):
        if accuracy > steps[-1].accuracy:
            steps.append(Step(price, accuracy))
    return steps


def expected_improvement(mean: Array, spread: Array, level: float) -> Array:
    """Expected excess of normal variables over a level."""
    z = (mean - level) / spread
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.asarray(spread * (z * ndtr(z) + density))


def expected_hypervolume_gain(mean: Array, spread: Array, prices: Array, *, steps: list[Step], limit: float) -> Array:
    """Expected growth of the hypervolume up to `limit` by each of several candidates.

    Args:
        mean: (n,) expected accuracies.
        spread: (n,) their standard deviations.
        prices: (n,) their prices.
        steps: of the present front.
        limit: price at which the front ends.
    """
    gain = np.zeros(len(mean))
    ends = [step.price for step in steps[1:]] + [limit]
    for step, end in zip(steps, ends, strict=True):
        width = np.clip(min(end, limit) - np.maximum(prices, step.price), 0.0, None)
        if width.any():
            gain += width * expected_improvement(mean, spread, step.accuracy)
    return gain

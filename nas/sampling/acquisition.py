"""How much a candidate is expected to improve what is known, if its latency is certain and its accuracy a normal variable.

Since latency needs no trial, the expected improvement of a front has a closed form: under the front's staircase every step is a
level that the candidate has to exceed, so the hypervolume gained is a sum of ordinary expected improvements, one for each step to
the right of the candidate, weighted by the step's width.

Milliseconds stand for whatever a front is against (`nas.sampling.pricing`): nothing here depends on their being a time.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


class Step(NamedTuple):
    """From these milliseconds on, this accuracy is known to be reached."""

    ms: float
    accuracy: float


def staircase(points: Iterable[tuple[float, float]], *, floor: float) -> list[Step]:
    """Steps of the front of (milliseconds, accuracy) points, rising, from 0 ms at the accuracy `floor`."""
    steps = [Step(0.0, floor)]
    for ms, accuracy in sorted(points):
        if accuracy > steps[-1].accuracy:
            steps.append(Step(ms, accuracy))
    return steps


def hypervolume(points: Iterable[tuple[float, float]], *, floor: float, limit_ms: float) -> float:
    """Area below the front's staircase and above `floor`, up to `limit_ms`: accuracy × milliseconds."""
    steps = staircase(((ms, accuracy) for ms, accuracy in points if ms <= limit_ms), floor=floor)
    ends = [step.ms for step in steps[1:]] + [limit_ms]
    return sum((end - step.ms) * (step.accuracy - floor) for step, end in zip(steps, ends, strict=True))


def expected_improvement(mean: Array, spread: Array, level: float) -> Array:
    """Expected excess of normal variables over a level."""
    z = (mean - level) / spread
    density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.asarray(spread * (z * ndtr(z) + density))


def expected_hypervolume_gain(mean: Array, spread: Array, ms: Array, *, steps: list[Step], limit_ms: float) -> Array:
    """Expected growth of the hypervolume up to `limit_ms` by each of several candidates.

    Args:
        mean: (n,) expected accuracies.
        spread: (n,) their standard deviations.
        ms: (n,) milliseconds.
        steps: of the present front.
        limit_ms: where the front ends.
    """
    gain = np.zeros(len(mean))
    ends = [step.ms for step in steps[1:]] + [limit_ms]
    for step, end in zip(steps, ends, strict=True):
        width = np.clip(min(end, limit_ms) - np.maximum(ms, step.ms), 0.0, None)
        if width.any():
            gain += width * expected_improvement(mean, spread, step.accuracy)
    return gain

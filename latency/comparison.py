"""Networks measured side by side, as ratios to one of them with intervals."""

import random
from dataclasses import dataclass

from latency.runner import low_ns
from latency.timing import Timing

DRAWS = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """How many times as long a network takes as another, and the bootstrap interval that holds 95 % of resamplings."""

    ratio: float
    low: float
    high: float


def compare(timing: Timing, base: Timing, *, seed: int = 0) -> Ratio:
    """The ratio of two networks that were measured interleaved, so that both met the same disturbances.

    Args:
        timing: of the network.
        base: of the one it is compared with; with itself the ratio is exactly 1.
        seed: of the resampling. Slices are drawn, not runs: runs of one slice share its luck.
    """
    ratio = timing.low_ms / base.low_ms
    if timing is base:
        return Ratio(1.0, 1.0, 1.0)
    source = random.Random(seed)
    one, other = _slices(timing), _slices(base)
    drawn = sorted(_resampled(one, source) / _resampled(other, source) for _ in range(DRAWS))
    tail = round(DRAWS * (1 - LEVEL) / 2)
    return Ratio(ratio, min(ratio, drawn[tail]), max(ratio, drawn[-1 - tail]))


def _slices(timing: Timing) -> list[tuple[int, int]]:
    """Fastest whole run and probe of each slice that has a whole run; of all slices where none has."""
    whole = [(min(part.whole_ns), part.probe_ns) for part in timing.slices if part.whole_ns]
    return whole or [(min(part.ns), part.probe_ns) for part in timing.slices]


def _resampled(slices: list[tuple[int, int]], source: random.Random) -> int:
    drawn = source.choices(slices, k=len(slices))
    return low_ns([(fastest,) for fastest, _ in drawn], [probe for _, probe in drawn])

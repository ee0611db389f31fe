"""How long candidates are trained before they are judged, and how far such brief scores can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

from nas.errors import StudyError

BOOTSTRAP = 500


@dataclass(frozen=True)
class Fidelity:
    """One rung of brief training: `images` seen in a schedule of its own, starting from the weights of the rung before.

    A schedule of its own ranks better than a long one cut short, whose learning rate has not come down yet.
    """

    images: int


DEFAULT_LADDER = (Fidelity(images=5_000), Fidelity(images=15_000))


def parse_ladder(text: str) -> tuple[Fidelity, ...]:
    """Rungs from the number of images on each, separated by commas, such as ``5000,15000``.

    Raises:
        StudyError: a number is not a whole one from 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise StudyError(f"rungs must be whole numbers of images from 1, separated by commas, got {text!r}")
    return tuple(Fidelity(images=int(part)) for part in parts)


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's tau between two scores of the same candidates, with its 90 % bootstrap interval.

    All three are None where fewer than three candidates have both scores, or all have one score alike.
    """

    tau: float | None
    low: float | None
    high: float | None
    candidates: int


def rank_agreement(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> RankAgreement:
    """How alike two scores rank the same candidates; 1: alike, 0: not at all, −1: the other way round."""
    one, other = np.asarray(first, float), np.asarray(second, float)
    count = len(one)
    tau = _tau(one, other)
    if count < 3 or tau is None:
        return RankAgreement(None, None, None, count)
    source = np.random.default_rng(seed)
    drawn = (source.integers(0, count, count) for _ in range(BOOTSTRAP))
    taus = [value for rows in drawn if (value := _tau(one[rows], other[rows])) is not None]
    low, high = np.quantile(taus, (0.05, 0.95))
    return RankAgreement(tau, float(low), float(high), count)


def _tau(one: np.ndarray, other: np.ndarray) -> float | None:
    """Kendall's tau-b, None where one side has a single value."""
    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return None
    return float(kendalltau(one, other).statistic)

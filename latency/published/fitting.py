"""Fitting a latency model to published figures whose sources disagree in scale, and judging it family by family.

    published ≈ scale of the runtime × Σ weight × quantity        (the newest runtime's scale is 1: the target's)

Relative least squares in turns: non-negative weights for given scales, then each scale for given weights, outliers trusted
less. A scale is held near 1, within what sources were seen to disagree by, as if that were one more figure.

The judge leaves one family of networks out, in all tables, and predicts it from the others; the scales it is multiplied by are
those of the others, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency.errors import ModelError
from latency.fitting import Accuracy, accuracy
from latency.published.figures import Figure
from latency.published.terms import TERMS, Quantities, quantities, summed
from searchspace.architecture import lower

Array = NDArray[np.float64]

ROUNDS = 500
SETTLED = 1e-10  # change of a scale from round to round
PULL = 0.02  # of a weight towards 0, in errors of one figure, for a share of a network's time
SOURCES = 0.3  # standard deviation of runtimes' scales about 1
NOISE = 0.08  # of a figure about its model
OUTLIER = 2.0  # residuals of so many scales begin to count less
SCALE_FLOOR = 0.01
COVERAGE = 0.9  # of unseen figures, every family counting alike, fall into the interval


@dataclass(frozen=True)
class Fit:
    """Milliseconds per unit of each term, and how much slower than the newest runtime each runtime is."""

    weights: dict[str, float]
    scales: dict[str, float]

    def ms(self, parts: Quantities, runtime: str) -> float:
        """Milliseconds by a runtime; one that no figure of the fit was measured with counts like the newest."""
        return self.scales.get(runtime, 1.0) * sum(self.weights[term] * parts[term] for term in self.weights)


@dataclass(frozen=True)
class Judgement:
    """How a fit predicts families that it was not fitted to.

    Attributes:
        held_out: over all figures.
        families: median relative error and number of figures of each family.
        predicted_ms: of each figure, in their order.
        low: published ÷ predicted that one in twenty stays below, every family counting alike.
        high: that one in twenty exceeds.
    """

    held_out: Accuracy
    families: dict[str, tuple[float, int]]
    predicted_ms: tuple[float, ...]
    low: float
    high: float


def rows_of(figures: Sequence[Figure]) -> list[Quantities]:
    """The quantities of each figure's network."""
    return [summed(quantities(lower(figure.architecture).ops)) for figure in figures]


def fit(figures: Sequence[Figure], newest: str, *, terms: Sequence[str] = TERMS) -> Fit:
    """Weights of `terms`, and the scales of the figures' runtimes.

    Raises:
        ModelError: no figure was measured with the newest runtime.
    """
    if not any(figure.runtime == newest for figure in figures):
        raise ModelError(f"some figures must be of the runtime {newest!r} that predictions are for, got none")
    return _fit(figures, rows_of(figures), newest, terms)


def judge(
    figures: Sequence[Figure], newest: str, *, rows: Sequence[Quantities] | None = None, terms: Sequence[str] = TERMS
) -> Judgement:
    """Predicts each family by a fit to the others.

    Args:
        figures: the published latencies.
        newest: the runtime whose scale is 1.
        rows: quantities of each figure's network, if they are others than those of `rows_of`.
        terms: the quantities to go by.
    """
    rows = rows_of(figures) if rows is None else rows
    predicted = np.zeros(len(figures))
    families = list(dict.fromkeys(figure.family for figure in figures))
    for family in families:
        kept = [index for index, figure in enumerate(figures) if figure.family != family]
        found = _fit([figures[index] for index in kept], [rows[index] for index in kept], newest, terms)
        for index, figure in enumerate(figures):
            if figure.family == family:
                predicted[index] = found.ms(rows[index], figure.runtime)
    published = np.array([figure.ms for figure in figures])
    of = np.array([families.index(figure.family) for figure in figures])
    error = np.abs(predicted / published - 1)
    ratio = published / predicted
    tail = (1 - COVERAGE) / 2
    return Judgement(
        held_out=accuracy(predicted, published),
        families={
            family: (float(np.median(error[of == number])), int(np.sum(of == number)))
            for number, family in enumerate(families)
        },
        predicted_ms=tuple(predicted.tolist()),
        low=_quantile(ratio, of, tail),
        high=1 / _quantile(1 / ratio, of, tail),
    )


def _fit(figures: Sequence[Figure], rows: Sequence[Quantities], newest: str, terms: Sequence[str]) -> Fit:
    from scipy.optimize import nnls  # slow to load, and predicting does without

    published = np.array([figure.ms for figure in figures])
    matrix = np.array([[row[term] for term in terms] for row in rows]) / published[:, None]
    size = np.maximum(matrix.mean(axis=0), 1e-30)  # so that weights become shares of a network's time
    matrix = matrix / size
    runtimes = list(dict.fromkeys(figure.runtime for figure in figures))
    of = np.array([runtimes.index(figure.runtime) for figure in figures])
    scales = np.ones(len(runtimes))
    trust = np.ones(len(figures))
    for _ in range(ROUNDS):
        system = np.concatenate([matrix * (scales[of] * trust)[:, None], PULL * np.eye(len(terms))])
        weights, _ = nnls(system, np.concatenate([trust, np.zeros(len(terms))]))
        predicted = np.maximum(matrix @ weights, 1e-9)
        residual = 1 - scales[of] * predicted
        limit = OUTLIER * max(SCALE_FLOOR, 1.4826 * float(np.median(np.abs(residual))))
        trust = np.sqrt(np.minimum(1.0, limit / np.maximum(np.abs(residual), 1e-12)))
        before = scales.copy()
        for number, runtime in enumerate(runtimes):
            if runtime != newest:
                shares = predicted[of == number] * trust[of == number]
                held = (NOISE / SOURCES) ** 2
                scales[number] = (np.sum(shares * trust[of == number]) + held) / (np.sum(shares**2) + held)
        if np.max(np.abs(scales - before)) < SETTLED:
            break
    return Fit(
        dict(zip(terms, (weights / size).tolist(), strict=True)), dict(zip(runtimes, scales.tolist(), strict=True))
    )


def _quantile(values: Array, families: NDArray[np.int_], share: float) -> float:
    """The smallest value that at most `share` of the figures lie below, every family counting alike."""
    order = np.argsort(values)
    counts = np.bincount(families)
    weight = 1 / (counts[families] * len(counts))
    reached = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(reached, share, side="right")])

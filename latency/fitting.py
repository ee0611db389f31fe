"""Fitting a latency model: non-negative weights for the quantities of whole networks, and how well they tell unseen ones.

The error that counts is relative, noise only ever adds time, and there are about as many weights as networks. So: least squares
on predicted ÷ measured with weights that cannot be negative, outliers trusted less (slow ones least), and a pull of each weight
towards what a much simpler model, in which all kinds of kernels share their weights, says of it. The pull hardly matters with
two hundred networks; with 32 it takes the mean error from 3.1 % to 2.6 %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Quantities = Mapping[str, float]

NETWORK = "network"  # what every run costs besides its kernels
FOLDS = 8
ROUNDS = 6  # of reweighting
PULL = 0.01  # towards the shared weights: how far, in shares of themselves, counts like one network's error
PULL_FLOOR = 0.01  # share of a network's time below which shared weights are not told apart
SLOW, FAST = (
    1.5,
    3.0,
)  # residuals of so many scales begin to count less: measured slower, measured faster than predicted
SCALE_FLOOR = 0.01


@dataclass(frozen=True)
class Accuracy:
    """How predictions compare with measurements of networks that the fit did not see.

    Attributes:
        n: networks compared.
        within_5: share with an error of at most 5 %.
        within_10: share with an error of at most 10 %.
        median_error: median relative error.
        p95_error: 95th percentile of the relative error.
        spearman: rank correlation.
        kendall: Kendall's tau.
    """

    n: int
    within_5: float
    within_10: float
    median_error: float
    p95_error: float
    spearman: float
    kendall: float

    def as_json(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Fold:
    """A fit to the networks at the positions `kept`, which has not seen those `held_out`."""

    weights: Mapping[str, float]
    kept: tuple[int, ...]
    held_out: tuple[int, ...]


@dataclass(frozen=True)
class CrossValidation:
    """Predicted milliseconds of each network by a fit that has not seen it, and those fits."""

    predicted: Array
    parts: tuple[Fold, ...]


def accuracy(predicted_ms: Array, measured_ms: Array) -> Accuracy:
    """Compares predictions with measurements, at least two of them."""
    from scipy.stats import kendalltau, spearmanr  # slow to load, and predicting does without

    error = np.abs(predicted_ms / measured_ms - 1)
    return Accuracy(
        n=len(error),
        within_5=float(np.mean(error <= 0.05)),
        within_10=float(np.mean(error <= 0.10)),
        median_error=float(np.median(error)),
        p95_error=float(np.quantile(error, 0.95)),
        spearman=float(spearmanr(predicted_ms, measured_ms).statistic),
        kendall=float(kendalltau(predicted_ms, measured_ms).statistic),
    )


def fit(rows: Sequence[Quantities], ms: Sequence[float]) -> dict[str, float]:
    """Milliseconds per unit of each quantity that occurs, and of one network.

    Args:
        rows: quantities of each network.
        ms: its measured time.
    """
    measured = np.asarray(ms, np.float64)
    shared = _shared(rows, measured)
    names = sorted({name for row in rows for name in row})
    matrix = _matrix(rows, names) / measured[:, None]
    prior = np.array([shared[_term(name)] for name in names])
    found = _robust(matrix, prior)
    return {NETWORK: float(found[0]), **{name: float(value) for name, value in zip(names, found[1:], strict=True)}}


def cross_validate(
    rows: Sequence[Quantities], ms: Sequence[float], *, folds: Sequence[int] | None = None
) -> CrossValidation:
    """Predicts each network by a fit that has not seen it.

    Args:
        rows: quantities of each network.
        ms: its measured time.
        folds: number of each network's group, which is held out together; `FOLDS` random ones of equal size if None.
    """
    if folds is None:
        order = np.random.default_rng(0).permutation(len(rows))
        folds = (order.argsort() % FOLDS).tolist()
    predicted, parts = np.zeros(len(rows)), []
    for fold in sorted(set(folds)):
        kept = tuple(index for index, one in enumerate(folds) if one != fold)
        held_out = tuple(index for index, one in enumerate(folds) if one == fold)
        weights = fit([rows[index] for index in kept], [ms[index] for index in kept])
        for index in held_out:
            predicted[index] = total(weights, rows[index])
        parts.append(Fold(weights, kept, held_out))
    return CrossValidation(predicted, tuple(parts))


def total(weights: Mapping[str, float], row: Quantities) -> float:
    """Milliseconds of a network with these quantities; those without a weight count nothing."""
    return weights[NETWORK] + sum(weights.get(name, 0.0) * value for name, value in row.items())


def _shared(rows: Sequence[Quantities], ms: Array) -> dict[str, float]:
    """Weights by term alone, whatever the kind of kernel."""
    merged: list[dict[str, float]] = []
    for row in rows:
        sums: dict[str, float] = {NETWORK: 1.0}
        for name, value in row.items():
            sums[_term(name)] = sums.get(_term(name), 0.0) + value
        merged.append(sums)
    terms = sorted({term for row in merged for term in row} - {NETWORK})
    matrix = _matrix(merged, terms) / ms[:, None]
    found = _robust(matrix, np.zeros(len(terms)))
    return {NETWORK: float(found[0]), **dict(zip(terms, found[1:].tolist(), strict=True))}


def _term(name: str) -> str:
    """A quantity's name without the kind of kernel, but with the layout; depthwise arithmetic is a thing of its own."""
    kind, _, term = name.rpartition(":")
    if "depthwise" in kind and term == "macs":
        return name
    return f"nchw:{term}" if kind.startswith("nchw ") else term


def _matrix(rows: Sequence[Quantities], names: Sequence[str]) -> Array:
    """One row a network: 1 for the network itself, then the named quantities."""
    return np.array([[1.0, *(row.get(name, 0.0) for name in names)] for row in rows])


def _robust(matrix: Array, prior: Array) -> Array:
    """Non-negative weights with matrix @ weights ≈ 1, pulled towards `prior` (of all but the first)."""
    from scipy.optimize import nnls  # slow to load, and predicting does without

    size = np.maximum(matrix.mean(axis=0), 1e-30)  # so that weights become shares of a network's time
    scaled = matrix / size
    start = np.concatenate([[0.0], prior]) * size
    strength = PULL / (start + PULL_FLOOR)
    strength[0] = 0.0
    trust = np.ones(len(matrix))
    found = start
    for _ in range(ROUNDS):
        system = np.concatenate([scaled * trust[:, None], np.diag(strength)])
        found, _ = nnls(system, np.concatenate([trust, strength * start]))
        residual = 1 - scaled @ found  # positive: slower than predicted
        scale = max(SCALE_FLOOR, 1.4826 * float(np.median(np.abs(residual))))
        limit = np.where(residual > 0, SLOW, FAST) * scale
        trust = np.sqrt(np.minimum(1.0, limit / np.maximum(np.abs(residual), 1e-12)))
    return np.asarray(found / size)

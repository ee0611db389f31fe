"""A Gaussian process over encoded networks: expected accuracy, and how sure of it one can be after a few dozen trials.

Its covariance is a sum of one squared-exponential (or Matérn) kernel for each group of columns, over the group's distance. Few
hyperparameters (a variance and a length for each group, one noise), found by maximum likelihood under mild priors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

Array = NDArray[np.float64]
JITTER = 1e-6
ROOT5 = 5**0.5
PRIOR = np.array([0.0, -0.7, -1.5, 0.5, 0.7, 1.0, -1.5])
"""Centre of the normal priors (deviation 1) on theta: costs matter most, single decisions least."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted process.

    Attributes:
        groups: columns of each kernel.
        theta: logarithms of the variances, of the lengths, and of the noise.
        rows: (n, columns) that it was fitted to, scaled.
        shift: of columns.
        scale: of columns.
        mean: of the targets.
        deviation: of the targets.
        factor: Cholesky factor of the covariance.
        weights: covariance⁻¹ · targets.
    """

    groups: tuple[slice, ...]
    theta: Array
    rows: Array
    shift: Array
    scale: Array
    mean: float
    deviation: float
    factor: Array
    weights: Array

    def predict(self, rows: Array) -> tuple[Array, Array]:
        """Expected targets and their standard deviations (without noise), one for each row."""
        scaled = (rows - self.shift) / self.scale
        between = _covariance(_distances(scaled, self.rows, self.groups), self.theta)
        expected = between @ self.weights
        prior = float(np.exp(self.theta[: len(self.groups)]).sum())
        reduced = np.einsum("ij,ji->i", between, cho_solve((self.factor, True), between.T))
        spread = np.sqrt(np.maximum(prior - reduced, 1e-9))
        return self.mean + self.deviation * expected, self.deviation * spread


def fit(
    rows: Array,
    targets: Array,
    groups: Sequence[slice],
    *,
    extra_noise: Array | None = None,
    theta: Array | None = None,
) -> Surrogate:
    """Fits a process.

    Args:
        rows: (n, columns) encoded networks.
        targets: (n,) their scores.
        groups: columns that belong together.
        extra_noise: (n,) standard deviations by which single targets are less sure than others, in units of the targets.
        theta: hyperparameters of an earlier fit, to keep; None: found anew.
    """
    groups = tuple(groups)
    shift, scale = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    scaled = (rows - shift) / scale
    mean, deviation = float(targets.mean()), float(targets.std()) or 1.0
    values = (targets - mean) / deviation
    extra = np.zeros(len(targets)) if extra_noise is None else (extra_noise / deviation) ** 2
    distances = _distances(scaled, scaled, groups)
    if theta is None:
        theta = _most_likely(distances, values, extra, len(groups))
    covariance = _covariance(distances, theta) + np.diag(np.exp(theta[-1]) + extra + JITTER)
    factor = np.asarray(np.linalg.cholesky(covariance), dtype=float)
    weights = cho_solve((factor, True), values)
    return Surrogate(groups, theta, scaled, shift, scale, mean, deviation, factor, weights)


def _most_likely(distances: Array, values: Array, extra: Array, groups: int) -> Array:
    bounds = [(-6.0, 2.0)] * groups + [(-1.5, 3.0)] * groups + [(-6.0, 0.5)]
    found = minimize(
        _loss, PRIOR, args=(distances, values, extra), method="L-BFGS-B", bounds=bounds, options={"maxiter": 30}
    )
    return np.asarray(found.x, dtype=float)


def _loss(theta: Array, distances: Array, values: Array, extra: Array) -> float:
    """Negative log posterior of the hyperparameters."""
    covariance = _covariance(distances, theta) + np.diag(np.exp(theta[-1]) + extra + JITTER)
    try:
        factor, _ = cho_factor(covariance, lower=True)
    except np.linalg.LinAlgError:
        return 1e9
    fit_term = 0.5 * values @ cho_solve((factor, True), values)
    return float(fit_term + np.log(np.diag(factor)).sum() + 0.5 * np.sum((theta - PRIOR) ** 2))


def _distances(one: Array, other: Array, groups: Sequence[slice]) -> Array:
    """(groups, n, m) squared distances per column."""
    parts = []
    for columns in groups:
        a, b = one[:, columns], other[:, columns]
        squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
        parts.append(np.maximum(squared, 0.0) / max(a.shape[1], 1))
    return np.array(parts)


def _covariance(distances: Array, theta: Array) -> Array:
    """Sum of the groups' Matérn kernels."""
    count = len(distances)
    total = np.zeros(distances.shape[1:])
    for index in range(count):
        r = ROOT5 * np.sqrt(distances[index]) / np.exp(theta[count + index])
        total += np.exp(theta[index]) * (1 + r + r * r / 3) * np.exp(-r)
    return total

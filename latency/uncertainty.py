"""How wide a prediction's interval is: as wide as errors of networks were that spend their time alike.

The variance of a network's relative error is fitted, with non-negative weights, to errors of cross-validation, once with random
networks and once with all networks of a kind left out: a constant, the squared share of its time in each kind of kernel (so that
kinds which are predicted worse make wider intervals), and the leverage xᵀ(XᵀX + 1)⁻¹x, where x are the shares of its predicted
time in each quantity and X those of the networks fitted to (small where many of them spend their time alike). All three are
quadratic in x and add up to one matrix. The errors are divided by what it says, and nine in ten of those decide the width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from latency.fitting import FOLDS, NETWORK, Array, CrossValidation, Quantities, cross_validate

COVERAGE = 0.9  # of unseen networks fall into a prediction's interval
LEAST_WIDTH = 0.005  # standard deviation of a relative error below which no network's is said to be
OUTLIER = 6.0  # median errors: larger ones count as this large when variances are fitted
REWEIGHTINGS = 10
LEAST_PER_LEVERAGE = 0.1  # of the mean squared error, lest a network unlike all others seem certain
WIDEST = math.log(10)  # beyond this factor a network's distance means nothing any more
LEAST_SHARE = 1e-3  # of a network's time, below which quantities are not told apart
ROUNDS = 20  # of grouping


@dataclass(frozen=True)
class Uncertainty:
    """The interval of a prediction.

    Attributes:
        terms: quantities with a weight, the network first.
        matrix: (terms, terms) of which xᵀ matrix x is the variance of the relative error at the shares x.
        low: ln(measured ÷ predicted), in standard deviations, that one in twenty unseen networks stays below; at most 0.
        high: that one in twenty exceeds; at least 0.
    """

    terms: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    low: float
    high: float

    @staticmethod
    def judge(
        rows: Sequence[Quantities], ms: Sequence[float], weights: Mapping[str, float], random: CrossValidation
    ) -> "Uncertainty":
        """The uncertainty of a fit.

        Args:
            rows: quantities of the networks fitted to.
            ms: their measured time.
            weights: what was fitted.
            random: cross-validation of the same networks in random folds.
        """
        examples = [
            *_examples(rows, ms, random),
            *_examples(rows, ms, cross_validate(rows, ms, folds=alike(rows, weights))),
        ]
        terms, inverse = _leverage(rows, weights)
        kinds = sorted({_kind(name) for name in terms})
        variances = _variances(examples, kinds)
        members = np.array([[_kind(name) == kind for name in terms] for kind in kinds], np.float64)
        matrix = variances[0] + (members.T * variances[1:-1]) @ members + variances[-1] * inverse
        widths = np.sqrt(np.maximum(_design(examples, kinds) @ variances, LEAST_WIDTH**2))
        errors = np.array([one.error for one in examples]) / widths
        n, tail = len(rows), (1 - COVERAGE) / 2
        low = float(np.quantile(errors, max(0.0, math.floor(tail * (n + 1)) / n), method="inverted_cdf"))
        high = float(np.quantile(errors, min(1.0, math.ceil((1 - tail) * (n + 1)) / n), method="inverted_cdf"))
        plain = tuple(tuple(float(value) for value in row) for row in matrix)
        return Uncertainty(terms, plain, min(low, 0.0), max(high, 0.0))

    def interval(self, term_ms: Array) -> tuple[float, float]:
        """Lower and upper end in milliseconds.

        Args:
            term_ms: (terms,) predicted milliseconds of each of `terms`.
        """
        ms = float(term_ms.sum())
        width = self.width(term_ms)
        return ms * math.exp(max(self.low * width, -WIDEST)), ms * math.exp(min(self.high * width, WIDEST))

    def width(self, term_ms: Array) -> float:
        """Standard deviation of the relative error."""
        shares = term_ms / max(float(term_ms.sum()), 1e-12)
        return max(LEAST_WIDTH, math.sqrt(max(float(shares @ self._square @ shares), 0.0)))

    @cached_property
    def _square(self) -> Array:
        return np.array(self.matrix)

    def as_json(self) -> dict[str, object]:
        """Plain data."""
        return {"terms": self.terms, "matrix": self.matrix, "low": self.low, "high": self.high}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Uncertainty":
        """What `as_json` wrote.

        Raises:
            ValueError: the matrix is not one row and column a term.
        """
        terms = tuple(str(name) for name in plain["terms"])
        matrix = tuple(tuple(float(value) for value in row) for row in plain["matrix"])
        if [len(row) for row in matrix] != [len(terms)] * len(terms):
            raise ValueError(f"the uncertainty's matrix must have {len(terms)} rows and columns")
        return Uncertainty(terms, matrix, float(plain["low"]), float(plain["high"]))


def alike(rows: Sequence[Quantities], weights: Mapping[str, float]) -> list[int]:
    """Numbers of `FOLDS` groups of networks that spend their time in the same kinds of kernels (k-means)."""
    kinds = sorted({_kind(name) for name in weights})
    shares = np.zeros((len(rows), len(kinds)))
    for number, row in enumerate(rows):
        for name, value in {**row, NETWORK: 1.0}.items():
            if name in weights:
                shares[number, kinds.index(_kind(name))] += weights[name] * value
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    source = np.random.default_rng(0)
    centres = shares[[int(source.integers(len(rows)))]]
    while len(centres) < FOLDS:
        near = _squares(shares, centres).min(axis=1) + 1e-12
        centres = np.concatenate([centres, shares[[int(source.choice(len(rows), p=near / near.sum()))]]])
    for _ in range(ROUNDS):
        group = _squares(shares, centres).argmin(axis=1)
        centres = np.array(
            [shares[group == one].mean(axis=0) if (group == one).any() else centres[one] for one in range(FOLDS)]
        )
    return [int(one) for one in group]


def _squares(shares: Array, centres: Array) -> Array:
    """(networks, centres) squared distances."""
    return np.asarray(((shares[:, None] - centres[None]) ** 2).sum(axis=2))


class _Example(NamedTuple):
    """A network that a fit has not seen: its share of time in each kind of kernel, its leverage, ln(measured ÷ predicted)."""

    shares: Mapping[str, float]
    leverage: float
    error: float


def _examples(rows: Sequence[Quantities], ms: Sequence[float], found: CrossValidation) -> list[_Example]:
    """All networks of a cross-validation but those that the fit would have refused."""
    examples = []
    for part in found.parts:
        known = [rows[index] for index in part.kept]
        kinds = {_kind(name) for row in known for name in row}
        terms, inverse = _leverage(known, part.weights)
        for index in part.held_out:
            if {_kind(name) for name in rows[index]} <= kinds:
                term_ms = _term_ms(terms, part.weights, rows[index])
                parts = term_ms / max(float(term_ms.sum()), 1e-12)
                shares: dict[str, float] = {}
                for name, share in zip(terms, parts.tolist(), strict=True):
                    shares[_kind(name)] = shares.get(_kind(name), 0.0) + share
                error = math.log(ms[index] / found.predicted[index])
                examples.append(_Example(shares, float(parts @ inverse @ parts), error))
    return examples


def _design(examples: Sequence[_Example], kinds: Sequence[str]) -> Array:
    """(examples, 2 + kinds) what variances are weights of: 1, each kind's squared share, the leverage."""
    return np.array([[1.0, *(one.shares.get(kind, 0.0) ** 2 for kind in kinds), one.leverage] for one in examples])


def _variances(examples: Sequence[_Example], kinds: Sequence[str]) -> Array:
    """(2 + kinds) non-negative weights of the columns of `_design`."""
    from scipy.optimize import nnls  # slow to load, and predicting does without

    design = _design(examples, kinds)
    errors = np.abs([one.error for one in examples])
    squares = np.minimum(errors, OUTLIER * max(float(np.median(errors)), 1e-6)) ** 2
    expected = np.full(len(squares), squares.mean())
    found = np.zeros(design.shape[1])
    for _ in range(REWEIGHTINGS):  # a square scatters as much as it is large
        found, _ = nnls(design / expected[:, None], squares / expected)
        expected = np.maximum(design @ found, LEAST_WIDTH**2)
    return np.append(found[:-1], max(float(found[-1]), LEAST_PER_LEVERAGE * float(squares.mean())))


def _leverage(rows: Sequence[Quantities], weights: Mapping[str, float]) -> tuple[tuple[str, ...], Array]:
    """Quantities with a weight, the network first, and the matrix M of which xᵀMx is the leverage of the shares x.

    It is 1 for a usual network of those fitted to.
    """
    terms = (NETWORK, *(name for name, weight in weights.items() if weight > 0 and name != NETWORK))
    shares = np.array([_term_ms(terms, weights, row) for row in rows])
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    usual = np.maximum(np.sqrt((shares**2).mean(axis=0)), LEAST_SHARE)
    inverse = np.linalg.inv((shares / usual).T @ (shares / usual) + np.eye(len(terms)))
    return terms, np.asarray(inverse / np.outer(usual, usual) * len(rows) / len(terms))


def _term_ms(terms: Sequence[str], weights: Mapping[str, float], row: Quantities) -> Array:
    return np.array([weights[NETWORK], *(weights[name] * row.get(name, 0.0) for name in terms[1:])])


def _kind(name: str) -> str:
    """Of a quantity; the network's own cost is a kind of its own."""
    return name.rpartition(":")[0] or name

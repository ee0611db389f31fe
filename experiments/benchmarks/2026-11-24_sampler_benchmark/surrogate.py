"""A FITTED SURROGATE of the benchmark's table: what a network that was never trained would score. Nothing here is measured.

Mean: boosted trees and a ridge regression, averaged, over the encoded network (another family of models than the search's own
Gaussian process). On top of the mean every network has a deviation on each rung, drawn from the covariance of the held-out
residuals: what the surrogate cannot know of it, and the luck of a training.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from make_table import HERE, RUNGS, load_benchmark_space
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from latency.model import LatencyModel
from nas.sampling.decisions import Decisions
from nas.sampling.encoding import Encoder
from nas.study import RungScore
from nas.survey import Answers
from searchspace.architecture import Architecture

FOLDS = 10
Array = NDArray[np.float64]


def read_table(path: Path = HERE / "table.jsonl") -> list[dict[str, Any]]:
    """The table's rows, those trained again with another seed left out."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["seed"] == 0]


def read_noise(path: Path = HERE / "table.jsonl") -> dict[str, Any]:
    """By how much the scores of a network trained twice differ on each rung: standard deviation of one training."""
    scores: dict[str, list[list[float]]] = {}
    for row in map(json.loads, path.read_text().splitlines()):
        scores.setdefault(row["fingerprint"], []).append([rung["accuracy"] for rung in row["rungs"]])
    pairs = np.array([both[:2] for both in scores.values() if len(both) > 1])
    spread = np.sqrt(((pairs[:, 0] - pairs[:, 1]) ** 2).mean(axis=0) / 2)
    return {"networks": len(pairs), "deviation": spread.round(4).tolist()}


def read_latency_model() -> LatencyModel:
    """The model that gave the table its milliseconds."""
    return LatencyModel.load(HERE / "latency_model.json")


class Regression:
    """Boosted trees and ridge, averaged; one pair for each rung."""

    def __init__(self, rows: Array, targets: Array) -> None:
        self.parts = []
        for rung in range(targets.shape[1]):
            boosted = GradientBoostingRegressor(
                n_estimators=150, max_depth=3, learning_rate=0.05, subsample=0.6, max_features=0.2, random_state=rung
            )
            ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 16)))
            self.parts.append((boosted.fit(rows, targets[:, rung]), ridge.fit(rows, targets[:, rung])))

    def predict(self, rows: Array) -> Array:
        """(n, rungs)."""
        return np.stack([(one.predict(rows) + other.predict(rows)) / 2 for one, other in self.parts], axis=1)


@dataclass(frozen=True)
class TableSurrogate:
    """The table, continued to all networks of the space."""

    rows: tuple[dict[str, Any], ...]

    @cached_property
    def space(self) -> Any:
        return load_benchmark_space()

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(Decisions.of(self.space))

    @cached_property
    def model(self) -> LatencyModel:
        return read_latency_model()

    def encode(self, answers: Answers) -> Array:
        drawn = self.encoder.decisions.complete(answers, seed=0)
        return self.encoder.encode(drawn.architecture, drawn.answers, self.model.predict_ms(drawn.architecture))

    @cached_property
    def data(self) -> tuple[Array, Array]:
        """Encoded networks and their accuracies on each rung."""
        encoded = [self.encode(row["answers"]) for row in self.rows]
        return np.array(encoded), np.array([[rung["accuracy"] for rung in row["rungs"]] for row in self.rows])

    @cached_property
    def regression(self) -> Regression:
        return Regression(*self.data)

    @cached_property
    def held_out(self) -> Array:
        """Predictions of every row by regressions that did not see it."""
        rows, targets = self.data
        predicted = np.zeros_like(targets)
        folds = np.random.default_rng(0).permutation(len(rows)) % FOLDS
        for fold in range(FOLDS):
            predicted[folds == fold] = Regression(rows[folds != fold], targets[folds != fold]).predict(
                rows[folds == fold]
            )
        return predicted

    @cached_property
    def residuals(self) -> Array:
        """(n, rungs) what was measured above what was predicted, of every row by regressions that did not see it."""
        return self.data[1] - self.held_out

    @cached_property
    def deviation(self) -> Array:
        """Cholesky factor of the covariance of held-out residuals over the rungs."""
        return np.linalg.cholesky(np.cov(self.residuals.T) + 1e-8 * np.eye(len(RUNGS)))

    def taus(self) -> list[float]:
        """Kendall's tau of held-out predictions with what was measured, for each rung."""
        measured = self.data[1]
        return [float(kendalltau(self.held_out[:, rung], measured[:, rung]).statistic) for rung in range(len(RUNGS))]


class Trainer:
    """Stands for training: answers by the surrogate, counts images. `answers` are those of the trial at hand."""

    def __init__(self, surrogate: TableSurrogate, seed: int, answers: Callable[[], Answers]) -> None:
        self.surrogate, self.seed, self.answers = surrogate, seed, answers
        self.means: dict[str, Array] = {}
        self.observed: dict[str, Array] = {}
        self.images = 0

    def __call__(self, architecture: Architecture, rung: int) -> RungScore:
        fingerprint = architecture.fingerprint
        if fingerprint not in self.means:
            mean = self.surrogate.regression.predict(self.surrogate.encode(self.answers())[None])[0]
            source = np.random.default_rng([int(fingerprint, 16), self.seed])
            self.means[fingerprint] = mean
            self.observed[fingerprint] = mean + self.surrogate.deviation @ source.normal(size=len(mean))
        self.images += RUNGS[rung]
        return RungScore(float(self.observed[fingerprint][rung]), 1.0, 0.0)

import json

import numpy as np
import pytest

from latency.fitting import FOLDS, NETWORK, cross_validate, fit
from latency.uncertainty import Uncertainty, alike

TRUTH = {NETWORK: 0.1, "a:macs": 1.0, "b:macs": 2.0, "c:macs": 0.5}


def networks(count: int, seed: int, *, rare: float = 0.5) -> list[dict[str, float]]:
    """Networks that spend most of their time in ``a`` and ``b``, and little in ``c``."""
    source = np.random.default_rng(seed)
    return [
        {"a:macs": source.uniform(1, 3), "b:macs": source.uniform(1, 3), "c:macs": source.uniform(0, rare)}
        for _ in range(count)
    ]


def times(rows: list[dict[str, float]], seed: int, noise: float = 0.03) -> list[float]:
    source = np.random.default_rng(seed)
    exact = [TRUTH[NETWORK] + sum(TRUTH[name] * value for name, value in row.items()) for row in rows]
    return [ms * float(np.exp(source.normal(0, noise))) for ms in exact]


@pytest.fixture(scope="module")
def fitted() -> tuple[dict[str, float], Uncertainty]:
    rows = networks(300, 0)
    ms = times(rows, 1)
    weights = fit(rows, ms)
    return weights, Uncertainty.judge(rows, ms, weights, cross_validate(rows, ms))


def term_ms(weights: dict[str, float], found: Uncertainty, row: dict[str, float]) -> np.ndarray:
    return np.array([weights[name] * {**row, NETWORK: 1.0}.get(name, 0.0) for name in found.terms])


def test_nine_in_ten_unseen_networks_lie_in_their_interval(fitted):
    weights, found = fitted
    rows = networks(400, 2)
    inside = []
    for row, ms in zip(rows, times(rows, 3), strict=True):
        parts = term_ms(weights, found, row)
        low_ms, high_ms = found.interval(parts)
        assert low_ms <= parts.sum() <= high_ms
        inside.append(low_ms <= ms <= high_ms)
    assert 0.82 <= np.mean(inside) <= 0.97


def test_the_less_alike_a_network_is_the_wider_its_interval(fitted):
    weights, found = fitted
    assert "c:macs" in found.terms
    widths = [
        found.width(term_ms(weights, found, {"a:macs": 2.0, "b:macs": 2.0, "c:macs": value})) for value in (0, 1, 3, 9)
    ]
    assert widths == sorted(widths)
    assert widths[-1] > 2 * widths[0]
    assert 0.02 < widths[0] < 0.06  # the noise is 0.03


def test_a_kind_that_is_predicted_worse_makes_wider_intervals():
    rows = networks(300, 4, rare=3)
    source = np.random.default_rng(5)
    exact = [TRUTH[NETWORK] + sum(TRUTH[name] * value for name, value in row.items()) for row in rows]
    b_ms = [2.0 * row["b:macs"] for row in rows]
    ms = [whole + part * float(source.normal(0, 0.2)) for whole, part in zip(exact, b_ms, strict=True)]
    weights = fit(rows, ms)
    found = Uncertainty.judge(rows, ms, weights, cross_validate(rows, ms))
    steady = found.width(term_ms(weights, found, {"a:macs": 3.0, "b:macs": 0.3, "c:macs": 3.0}))
    unsteady = found.width(term_ms(weights, found, {"a:macs": 0.3, "b:macs": 3.0, "c:macs": 0.3}))
    assert unsteady > 2 * steady


def test_an_interval_never_spans_more_than_ten_times_either_way(fitted):
    weights, found = fitted
    parts = term_ms(weights, found, {"c:macs": 1e9})
    low_ms, high_ms = found.interval(parts)
    assert 0.099 * parts.sum() < low_ms < parts.sum() < high_ms < 10.01 * parts.sum()


def test_it_is_plain_data(fitted):
    _, found = fitted
    assert Uncertainty.from_json(json.loads(json.dumps(found.as_json()))) == found
    with pytest.raises(ValueError, match="rows and columns"):
        Uncertainty.from_json({**found.as_json(), "matrix": [[1.0]]})


def test_networks_of_a_kind_are_one_group():
    rows = [{"a:macs": 1.0}] * 10 + [{"b:macs": 1.0}] * 10
    groups = alike(rows, TRUTH)
    assert len(set(groups)) == 2
    assert len(set(groups[:10])) == len(set(groups[10:])) == 1
    assert max(groups) < FOLDS

"""A latency model that most finalists contradict is corrected by what they say; one that holds is left alone."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas.correction import correction
from nas.finalists import Finalist
from nas.outcomes import Tried
from tests.nas.learning import small


@dataclass(frozen=True)
class Measured:
    """What is asked of a timing."""

    low_ms: float
    stable: bool


def finalist(predicted_ms: float, measured_ms: float | None, *, stable: bool = True) -> Finalist:
    tried = Tried(small(), 0.5, 1.0, predicted_ms, 0.9 * predicted_ms, 1.1 * predicted_ms)
    measured = None if measured_ms is None else Measured(measured_ms, stable)
    return Finalist(tried, Path("a.pt"), None, measured)  # type: ignore[arg-type]


def test_most_outside_their_intervals_correct_all() -> None:
    found = correction(
        [finalist(1.0, 1.5), finalist(2.0, 3.0), finalist(1.0, 1.05), finalist(4.0, 6.0)], 0.4, target="board.yaml"
    )
    assert found is not None
    assert found.factor == pytest.approx(1.5)
    assert (found.outside, found.measured, found.reference_change) == (3, 4, 0.4)
    corrected = found.of(finalist(2.0, None).tried)
    assert (corrected.low_ms, corrected.predicted_ms, corrected.high_ms) == pytest.approx((2.7, 3.0, 3.3))
    assert "3 of 4" in str(found) and "+40%" in str(found)
    assert "`nas profile --target board.yaml --recalibrate`" in str(found)
    assert "now" not in str(dataclasses.replace(found, reference_change=None))


def test_a_model_that_holds_or_was_hardly_measured_is_left_alone() -> None:
    assert correction([finalist(1.0, 1.5), finalist(2.0, 2.1), finalist(1.0, 1.05)], None) is None
    assert correction([finalist(1.0, 1.5), finalist(2.0, 3.0)], None) is None
    assert correction([finalist(1.0, 1.5), finalist(2.0, 3.0), finalist(1.0, 1.5, stable=False)], None) is None
    assert correction([finalist(1.0, 1.5), finalist(2.0, 3.0), finalist(1.0, None)], None) is None

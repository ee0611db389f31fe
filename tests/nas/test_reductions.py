"""The schedule of reductions reaches the budget, or says that it does not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import BudgetError
from nas.reductions import STEPS, parse_reduction, reductions


@given(st.floats(0.5, 100), st.floats(0.05, 0.95), st.floats(0.5, 1))
def test_the_default_reaches_the_budget_in_its_number_of_steps(start_ms: float, share: float, decay: float) -> None:
    schedule = reductions(None, decay=decay, start_ms=start_ms, budget_ms=share * start_ms)
    now = start_ms
    for _ in range(STEPS):
        assert now > share * start_ms
        now = schedule.goal_ms(now)
    assert now == pytest.approx(share * start_ms)
    assert schedule.total_ms > start_ms - share * start_ms


def test_the_papers_schedule() -> None:
    schedule = reductions("0.5ms", decay=0.96, start_ms=20, budget_ms=10)
    assert schedule.goal_ms(20) == 19.5
    assert schedule.goal_ms(19.5) == pytest.approx(19.5 - 0.48)
    assert schedule.total_ms == pytest.approx(12.5)
    assert reductions("0.025", decay=1.0, start_ms=20, budget_ms=None).goal_ms(10) == 9.5


def test_without_a_budget_all_of_the_latency_is_within_reach() -> None:
    schedule = reductions("0.025", decay=0.96, start_ms=20, budget_ms=None)
    assert schedule.goal_ms(19.5) == pytest.approx(19.5 - 0.48)
    assert schedule.goal_ms(20 - 12.5) == pytest.approx(20 - 12.5 - 0.5 / 3), "where the sum of what decays ends"
    assert schedule.goal_ms(1) == pytest.approx(1 - 0.5 / 3)
    assert schedule.total_ms == math.inf


def test_one_that_falls_short_is_refused() -> None:
    with pytest.raises(
        BudgetError, match=r"15 ms must be saved, but .* 0\.5 ms with decay 0\.96 saves 12\.5 ms at most"
    ):
        reductions("0.5ms", decay=0.96, start_ms=20, budget_ms=5)


@pytest.mark.parametrize("text", ["0", "-1ms", "1.5", "ms", "much", "inf", "nan"])
def test_refusals(text: str) -> None:
    with pytest.raises(BudgetError, match="--step must be"):
        parse_reduction(text)

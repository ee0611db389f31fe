"""Surveys: the fastest network is at least as fast as any drawn, starts lie within the budget and are spread."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import BudgetError
from nas.limits import BUDGET, Limit, size_limits
from nas.survey import RecordingSuggest, meeting, require_each, survey
from searchspace.architecture import Architecture, lower
from searchspace.sampling import FixedSuggest, RandomSuggest, every
from searchspace.space import parse_space
from tests.searchspace.strategies import DEFAULT

SMALL = parse_space(
    """
    format: 1
    resolution: 8
    stem: {width: [8, 16, 24], stride: 1}
    stages:
      - {depth: [1, 2], width: [16, 32], stride: 2, blocks: {uib: {expansion: [1, 4], dw_mid: [3, 5]}, fire: {}}}
    """
).adapt(channels=1, classes=2)


def cost(architecture: Architecture) -> float:
    return lower(architecture).macs / 1e6


SURVEY = survey(DEFAULT, cost, samples=400, seed=1)


def test_the_descent_finds_the_fastest_network_of_a_small_space() -> None:
    brute_force = min(cost(architecture) for architecture in every(SMALL.sample))
    assert survey(SMALL, cost, samples=5, seed=0).fastest_ms == brute_force


def test_latencies_ascend_and_belong_to_their_answers() -> None:
    assert list(SURVEY.latencies_ms) == sorted(SURVEY.latencies_ms)
    for ms, answers in list(zip(SURVEY.latencies_ms, SURVEY.answers, strict=True))[::40]:
        assert cost(DEFAULT.sample(FixedSuggest(answers))) == ms
    assert SURVEY.fastest_ms <= SURVEY.latencies_ms[0]


@given(st.floats(0.01, 1.0), st.integers(1, 30))
def test_starts_are_distinct_within_the_budget_and_reach_both_ends(share: float, count: int) -> None:
    budget = SURVEY.quantile_ms(share)
    costs = [cost(DEFAULT.sample(FixedSuggest(answers))) for answers in SURVEY.spread(budget, count)]
    fitting = [ms for ms in SURVEY.latencies_ms if ms <= budget]
    assert len(costs) == min(count, len(fitting))
    assert costs == sorted(costs)
    assert costs[0] == fitting[0]
    if count > 1:
        assert costs[-1] == fitting[-1]


def test_nothing_fits_a_budget_below_the_fastest() -> None:
    assert SURVEY.spread(SURVEY.fastest_ms / 2, 5) == []
    assert SURVEY.feasible_share(SURVEY.fastest_ms / 2) == 0
    assert SURVEY.feasible_share(SURVEY.latencies_ms[-1]) == 1


@given(st.integers(0, 200))
def test_a_recorder_keeps_given_answers_where_they_are_on_offer(seed: int) -> None:
    first = RecordingSuggest(RandomSuggest(seed))
    architecture = DEFAULT.sample(first)
    again = RecordingSuggest(RandomSuggest(seed + 1), first.answers)
    assert DEFAULT.sample(again) == architecture
    assert again.answers == first.answers


PARAMS = sorted(lower(SMALL.sample(FixedSuggest(answers))).params for answers in survey(SMALL, cost, seed=2).answers)


@given(st.floats(0.05, 0.95))
def test_what_is_beyond_a_limit_is_no_start_and_does_not_count(share: float) -> None:
    limits = size_limits(params=PARAMS[int(share * len(PARAMS))])
    surveyed = survey(SMALL, cost, limits=limits, samples=100, seed=3)
    ample = surveyed.latencies_ms[-1]
    started = surveyed.spread(ample, 100)
    assert len(started) / 100 == surveyed.feasible_share(ample)
    assert all(limits[0].excess(SMALL.sample(FixedSuggest(answers))) <= 0 for answers in started)
    fitting = [ms for ms, fits in zip(surveyed.latencies_ms, surveyed.within, strict=True) if fits]
    assert surveyed.quantile_ms(0.5) in (fitting or surveyed.latencies_ms)


def test_a_limit_that_nothing_meets_is_named_with_the_least_there_is() -> None:
    smallest = min(lower(architecture).params for architecture in every(SMALL.sample))
    limits = size_limits(params=smallest - 1, peak_bytes=10**9)
    surveyed = survey(SMALL, cost, limits=limits, samples=20, seed=0)
    with pytest.raises(BudgetError, match=f"--max-params must .* the least found has {smallest:,} parameters") as told:
        require_each(SMALL, surveyed, limits, seed=0)
    assert "peak" not in str(told.value) and "\n" not in str(told.value)


def test_a_network_within_rare_limits_is_found_or_those_in_the_way_are_named() -> None:
    smallest = min(lower(architecture).params for architecture in every(SMALL.sample))
    fastest = min(cost(architecture) for architecture in every(SMALL.sample))
    surveyed = survey(SMALL, cost, samples=5, seed=0)
    limits = (Limit(BUDGET, 1e9, cost), *size_limits(params=smallest))
    assert lower(SMALL.sample(FixedSuggest(meeting(SMALL, surveyed, limits, seed=0)))).params == smallest
    limits = (Limit(BUDGET, fastest / 2, cost), *size_limits(params=10**9))
    with pytest.raises(BudgetError, match=r"all limits at once.* within --max-params and beyond --budget-ms \(.* ms"):
        meeting(SMALL, surveyed, limits, seed=0)

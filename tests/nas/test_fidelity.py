"""Rank agreement is Kendall's tau with an interval that holds it, and silent where there is nothing to say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import StudyError
from nas.fidelity import DEFAULT_LADDER, ZERO_COSTS, Fidelity, parse_ladder, rank_agreement

scores = st.lists(st.integers(0, 1000), min_size=4, max_size=30, unique=True)


@given(scores)
@settings(max_examples=10)
def test_a_score_agrees_with_itself_and_disagrees_with_its_opposite(values: list[int]) -> None:
    same = rank_agreement(values, [2 * value + 1 for value in values])
    opposite = rank_agreement(values, [-value for value in values])
    assert same.tau is not None and opposite.tau is not None
    assert abs(same.tau - 1) < 1e-9
    assert abs(opposite.tau + 1) < 1e-9


@given(scores, st.randoms(use_true_random=False))
@settings(max_examples=10)
def test_the_interval_is_ordered_and_within_bounds(values: list[int], source: object) -> None:
    shuffled = list(values)
    source.shuffle(shuffled)  # type: ignore[attr-defined]
    agreement = rank_agreement(values, shuffled)
    assert agreement.low is not None and agreement.high is not None
    assert -1 - 1e-9 <= agreement.low <= agreement.high <= 1 + 1e-9
    assert agreement == rank_agreement(values, shuffled)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=20))
@settings(max_examples=5, deadline=None)
def test_both_ways_to_the_interval_agree(pairs: list[tuple[int, int]]) -> None:
    one, other = zip(*pairs, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        at_once = rank_agreement(one, other)
        patch.setattr("nas.fidelity.PAIRWISE", 0)
        one_by_one = rank_agreement(one, other)
    assert at_once.tau == one_by_one.tau
    if at_once.low is not None:
        assert at_once.low == pytest.approx(one_by_one.low)
        assert at_once.high == pytest.approx(one_by_one.high)


def test_too_few_or_all_alike_say_nothing() -> None:
    assert rank_agreement([1, 2], [1, 2]).tau is None
    assert rank_agreement([1, 1, 1, 1], [1, 2, 3, 4]).tau is None
    assert rank_agreement([], []).candidates == 0


def test_every_rung_is_longer_than_the_one_before() -> None:
    images = [fidelity.length(50_000) for fidelity in DEFAULT_LADDER]
    assert images == sorted(set(images))


rungs = st.one_of(
    st.builds(
        Fidelity,
        images=st.integers(1, 10**6),
        resolution=st.none() | st.integers(1, 512),
        schedule=st.sampled_from(["one_cycle", "cosine", "constant"]),
    ),
    st.builds(Fidelity, epochs=st.sampled_from([0.1, 0.25, 1.0, 3.0])),
)


@given(st.lists(rungs, min_size=1, max_size=3), st.none() | st.sampled_from(ZERO_COSTS))
@settings(max_examples=20)
def test_a_ladder_is_read_as_it_is_written(ladder: list[Fidelity], zero_cost: object) -> None:
    whole = ([Fidelity(zero_cost=zero_cost)] if zero_cost else []) + ladder  # type: ignore[arg-type]
    assert parse_ladder(",".join(map(str, whole))) == tuple(whole)


@pytest.mark.parametrize(
    "text",
    ["", "0", "5000,", "1.5", "5000@0", "5000@x", "5000:fast", "5000,naswot", "naswot", "0e", "infe", "-5", "1e5e"],
)
def test_what_is_no_ladder_is_one_line(text: str) -> None:
    with pytest.raises(StudyError) as refused:
        parse_ladder(text)
    assert "\n" not in str(refused.value)


def test_epochs_are_those_of_the_split() -> None:
    assert Fidelity(epochs=0.5).length(1000) == 500
    assert Fidelity(images=70).length(1000) == 70
    assert Fidelity(zero_cost="params").length(1000) == 0

"""Rank agreement is Kendall's tau with an interval that holds it, and silent where there is nothing to say."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nas.fidelity import DEFAULT_LADDER, rank_agreement

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


def test_too_few_or_all_alike_say_nothing() -> None:
    assert rank_agreement([1, 2], [1, 2]).tau is None
    assert rank_agreement([1, 1, 1, 1], [1, 2, 3, 4]).tau is None
    assert rank_agreement([], []).candidates == 0


def test_every_rung_is_longer_than_the_one_before() -> None:
    images = [fidelity.images for fidelity in DEFAULT_LADDER]
    assert images == sorted(set(images))

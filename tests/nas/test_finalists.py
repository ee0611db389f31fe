"""Fronts: nothing on them is beaten, everything else is; the order of full training starts at the ends."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from nas.finalists import pareto_front, ranked
from nas.study import Tried
from searchspace.architecture import Architecture
from searchspace.blocks import Conv


@dataclass(frozen=True)
class Point:
    accuracy: float
    latency_ms: float
    loss: float = 0.0


points = st.lists(
    st.builds(Point, st.integers(0, 5).map(float), st.integers(0, 9).map(float), st.integers(0, 3)), max_size=30
)


def beats(one: Point, other: Point) -> bool:
    mine, its = (one.accuracy, -one.loss), (other.accuracy, -other.loss)
    return mine >= its and one.latency_ms <= other.latency_ms and (mine > its or one.latency_ms < other.latency_ms)


@given(points)
def test_the_front_is_what_nothing_beats(candidates: list[Point]) -> None:
    front = pareto_front(candidates)
    assert set(front) == {one for one in candidates if not any(beats(other, one) for other in candidates)}
    assert len(set(front)) == len(front)
    assert front == sorted(front, key=lambda point: point.latency_ms)


def tried(index: int, point: Point) -> Tried:
    ms = point.latency_ms
    return Tried(
        Architecture((Conv(cout=index + 1),), resolution=8), point.accuracy, point.loss, ms, ms * 0.9, ms * 1.1
    )


@given(points)
def test_ranking_keeps_every_candidate_once_and_goes_front_by_front(candidates: list[Point]) -> None:
    pool = [tried(index, point) for index, point in enumerate(candidates)]
    order = ranked(pool)
    assert sorted(map(id, order)) == sorted(map(id, pool))
    front = pareto_front(pool)
    assert set(map(id, order[: len(front)])) == set(map(id, front))
    if order:
        assert order[0].accuracy == max(point.accuracy for point in candidates)
    if len(front) > 1:
        assert order[1].latency_ms == min(point.latency_ms for point in candidates)

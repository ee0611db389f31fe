"""Fronts: nothing on them is beaten, everything else is; the order of full training starts at the ends."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from latency.timing import Slice, Timing
from nas.checkpoint import save_checkpoint
from nas.correction import Correction
from nas.deployment import random_checkpoint
from nas.distillation import Distillation
from nas.finalists import Finalist, Shipped, front_of, notes_of, pareto_front, ranked, train_finalist
from nas.outcomes import Tried
from nas.recipe import Recipe
from nas.teachers import checkpoint_teacher
from searchspace.architecture import Architecture
from searchspace.blocks import Conv
from tests.nas.learning import shapes, small


@dataclass(frozen=True)
class Point:
    accuracy: float
    amounts: tuple[float, ...]
    loss: float = 0.0

    @property
    def costs(self) -> dict[str, float]:
        return dict(zip(AGAINST, self.amounts, strict=False))


AGAINST = ("ms", "params", "peak-bytes")


def points_of(costs: int) -> st.SearchStrategy[list[Point]]:
    amounts = st.tuples(*[st.integers(0, 9).map(float)] * costs)
    return st.lists(st.builds(Point, st.integers(0, 5).map(float), amounts, st.integers(0, 3)), max_size=30)


points = st.integers(1, 3).flatmap(points_of)


def beats(one: Point, other: Point) -> bool:
    mine, its = (one.accuracy, -one.loss), (other.accuracy, -other.loss)
    no_dearer = all(here <= there for here, there in zip(one.amounts, other.amounts, strict=True))
    return mine >= its and no_dearer and (mine > its or one.amounts != other.amounts)


@given(points)
def test_the_front_is_what_nothing_beats(candidates: list[Point]) -> None:
    front = pareto_front(candidates)
    assert set(front) == {one for one in candidates if not any(beats(other, one) for other in candidates)}
    assert len(set(front)) == len(front)
    assert front == sorted(front, key=lambda point: point.amounts[0])


def tried(index: int, point: Point) -> Tried:
    network, ms = Architecture((Conv(cout=index + 1),), resolution=8), point.amounts[0]
    return Tried(network, point.accuracy, point.loss, ms, ms * 0.9, ms * 1.1, predicted=point.costs)


@given(points)
def test_ranking_keeps_every_candidate_once_and_goes_front_by_front(candidates: list[Point]) -> None:
    pool = [tried(index, point) for index, point in enumerate(candidates)]
    order = ranked(pool)
    assert sorted(map(id, order)) == sorted(map(id, pool))
    front = pareto_front(pool)
    assert set(map(id, order[: len(front)])) == set(map(id, front))
    if order:
        assert order[0].accuracy == max(point.accuracy for point in candidates)
    if len(front) > 1 and len(order[0].costs) == 1:
        assert order[1].predicted_ms == min(point.amounts[0] for point in candidates)


def test_a_front_of_several_costs_is_begun_at_its_ends() -> None:
    costs = [(1.0, 9.0), (2.0, 8.0), (5.0, 5.0), (8.0, 2.0), (9.0, 1.0)]
    pool = [tried(index, Point(0.5 + 0.1 * (index == 2), amounts)) for index, amounts in enumerate(costs)]
    assert [pool.index(one) for one in ranked(pool)][:3] == [2, 0, 4], "the most accurate, then both ends"


def finalist(accuracy: float, told_ms: float, **costs: float) -> Finalist:
    network = Architecture((Conv(cout=8),), resolution=8)
    known = Tried(network, 0.1, 1.0, told_ms, told_ms, told_ms, predicted=costs)
    return Finalist(known, Path("checkpoint"), Shipped(Path("onnx"), accuracy, accuracy, 1.0), None)


def test_over_the_budget_counts_only_where_milliseconds_are_a_cost_or_nothing_is_within() -> None:
    within, over = finalist(0.6, 1.0, params=9.0), finalist(0.7, 2.0, params=5.0)
    assert front_of([within, over], budget_ms=1.5) == [within]
    assert front_of([over], budget_ms=1.5) == [over]
    slow, fast = finalist(0.7, 2.0, params=9.0, ms=2.0), finalist(0.6, 1.0, params=5.0, ms=1.0)
    assert front_of([slow, fast], budget_ms=1.5) == [fast, slow]


def test_milliseconds_among_the_costs_are_the_measured_or_corrected_ones() -> None:
    one = finalist(0.6, 2.0, params=9.0, ms=2.0)
    assert one.costs == {"params": 9.0, "ms": 2.0}
    corrected = Correction(1.5, 3, 3, None).of(one.tried)
    assert corrected.costs == {"params": 9.0, "ms": 3.0}
    measured = dataclasses.replace(one, measured=Timing((Slice((4_000_000,) * 9, 1),)))
    assert measured.costs == {"params": 9.0, "ms": 4.0}


def test_what_a_finalists_training_has_to_say_is_kept_beside_its_checkpoint(tmp_path: Path) -> None:
    data, start = shapes(), tmp_path / "start.pt"
    save_checkpoint(start, random_checkpoint(small()))
    lesson = Distillation(
        checkpoint_teacher(random_checkpoint(small(), seed=1)), replicas=1, folder=tmp_path / "labels"
    )
    recipe = Recipe(images=16, batch_size=16)

    def trained(name: str) -> list[str]:
        path = tmp_path / name
        train_finalist(start, data=data, recipe=recipe, path=path, seed=0, skip_images=0, distillation=lesson)
        return notes_of(path)

    assert trained("one.pt") == []
    (labels,) = (tmp_path / "labels").glob("*/replica-000.f16")
    labels.write_bytes(labels.read_bytes()[:-1] + b"?")
    (note,) = trained("other.pt")
    assert "was damaged: the teacher has been asked again" in note
    assert trained("other.pt") == [note], "also when it is asked for again"

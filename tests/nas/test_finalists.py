"""Fronts: nothing on them is beaten, everything else is; the order of full training starts at the ends."""

from dataclasses import dataclass
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from nas.checkpoint import save_checkpoint
from nas.deployment import random_checkpoint
from nas.distillation import Distillation
from nas.finalists import notes_of, pareto_front, ranked, train_finalist
from nas.recipe import Recipe
from nas.study import Tried
from nas.teachers import checkpoint_teacher
from searchspace.architecture import Architecture
from searchspace.blocks import Conv
from tests.nas.learning import shapes, small


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

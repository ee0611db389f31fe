"""Candidates climb: every rung goes on from the one before, sees new images, and scores what was asked for."""

import dataclasses
from pathlib import Path

import pytest
import torch

from nas.candidates import CandidateTrainer
from nas.checkpoint import load_checkpoint
from nas.data import Split
from nas.errors import Diverged
from nas.fidelity import SCORES, Fidelity, Score
from nas.recipe import Recipe
from nas.training import train
from tests.nas.learning import RESOLUTION, shapes, small

DATA = shapes()
RECIPE = Recipe(images=1, batch_size=16, lr=0.05)


def trainer(folder: Path, *ladder: Fidelity, **options: object) -> CandidateTrainer:
    half = Split(DATA.train.images[:, :, ::2, ::2].contiguous(), DATA.train.labels)
    judged = Split(DATA.validation.images[:, :, ::2, ::2].contiguous(), DATA.validation.labels)
    smaller = dataclasses.replace(DATA, resolution=RESOLUTION // 2, train=half, validation=judged)
    data = {RESOLUTION: DATA, smaller.resolution: smaller}
    return CandidateTrainer(data=data, recipe=RECIPE, ladder=ladder, folder=folder, seed=3, **options)  # type: ignore[arg-type]


def test_a_rung_goes_on_where_the_one_before_ended(tmp_path: Path) -> None:
    climbing = trainer(tmp_path, Fidelity(images=32), Fidelity(epochs=0.6))
    climbing(small(), 0)
    score = climbing(small(), 1)
    before = load_checkpoint(climbing.checkpoint(small(), 0))
    after = train(before, DATA, dataclasses.replace(RECIPE, images=48), seed=3, skip_images=32)
    kept = load_checkpoint(climbing.checkpoint(small(), 1)).state
    assert all(torch.equal(kept[name], tensor) for name, tensor in after.checkpoint.state.items())
    assert score.accuracy == after.accuracy
    assert climbing.images_before(small(), 2) == 80
    assert not list(tmp_path.glob("*.state"))


def test_a_trained_rung_is_not_trained_again(tmp_path: Path) -> None:
    climbing = trainer(tmp_path, Fidelity(images=32))
    first = climbing(small(), 0)
    written = climbing.checkpoint(small(), 0).stat().st_mtime_ns
    assert climbing(small(), 0) == first
    assert climbing.checkpoint(small(), 0).stat().st_mtime_ns == written


def test_a_rung_of_fewer_pixels_leads_to_one_of_more(tmp_path: Path) -> None:
    climbing = trainer(tmp_path, Fidelity(images=32, resolution=RESOLUTION // 2), Fidelity(images=32))
    climbing(small(), 0)
    assert load_checkpoint(climbing.checkpoint(small(), 0)).architecture.resolution == RESOLUTION // 2
    climbing(small(), 1)
    assert load_checkpoint(climbing.checkpoint(small(), 1)).architecture == small()


@pytest.mark.parametrize("kind", SCORES)
def test_more_of_a_score_is_better(tmp_path: Path, kind: Score) -> None:
    climbing = trainer(tmp_path, Fidelity(images=64), score=kind)
    score = climbing(small(), 0)
    assert score.accuracy is not None and score.loss is not None and score.training_loss is not None
    wanted = {"loss": -score.loss, "training-loss": -score.training_loss}.get(kind, score.accuracy)
    assert score.score == wanted


def test_a_score_without_training_trains_nothing(tmp_path: Path) -> None:
    climbing = trainer(tmp_path, Fidelity(zero_cost="synflow"), Fidelity(images=32))
    score = climbing(small(), 0)
    assert score.accuracy is None and score.score > 0
    assert not list(tmp_path.iterdir())
    assert climbing(small(), 1).accuracy is not None


def test_a_warm_start_is_the_most_similar_network_s(tmp_path: Path) -> None:
    climbing = trainer(tmp_path, Fidelity(images=64), warm_start=True)
    climbing(small(), 0)
    child = dataclasses.replace(
        small(), blocks=(*small().blocks, small().blocks[1].__class__(cout=16, hidden=16, dw_mid=3))
    )
    climbing(child, 0)
    metrics = load_checkpoint(climbing.checkpoint(child, 0)).metrics
    assert metrics["inherited_from"] == small().fingerprint
    assert 0.4 < metrics["inherited_share"] < 1
    assert "inherited_from" not in load_checkpoint(climbing.checkpoint(small(), 0)).metrics


class Killed(BaseException):
    """Stands in for a signal that cannot be caught."""


@pytest.mark.parametrize("relatives", [0, 1])
def test_a_warm_start_that_was_interrupted_goes_on_though_others_were_trained_meanwhile(
    tmp_path: Path, relatives: int
) -> None:
    fire = small().blocks[2].__class__
    first, child, nearer = (
        dataclasses.replace(small(), blocks=(*small().blocks, fire(squeeze=4, expand1x1=8, expand3x3=wide)))
        for wide in (4, 16, 15)
    )

    def climbing(name: str, **options: object) -> CandidateTrainer:
        return trainer(tmp_path / name, Fidelity(images=240), warm_start=True, **options)

    def dying(what: str, done: int, total: int | None) -> None:
        if done >= 160:  # after the first epoch, whose end was kept
            raise Killed

    for name in ("whole", "killed"):
        for architecture in (first,)[:relatives]:
            climbing(name)(architecture, 0)
    score = climbing("whole")(child, 0)
    with pytest.raises(Killed):
        climbing("killed", on_progress=dying)(child, 0)
    assert list((tmp_path / "killed").glob("*.state"))
    climbing("killed")(nearer, 0)
    again = climbing("killed")(child, 0)
    assert (again.accuracy, again.loss, again.training_loss) == (score.accuracy, score.loss, score.training_loss)
    one, other = (load_checkpoint(climbing(name).checkpoint(child, 0)) for name in ("whole", "killed"))
    assert all(torch.equal(tensor, other.state[name]) for name, tensor in one.state.items())
    assert other.metrics.get("inherited_from") == one.metrics.get("inherited_from")
    assert ("inherited_from" in one.metrics) == bool(relatives)
    assert not [path for path in (tmp_path / "killed").iterdir() if path.suffix != ".pt"]


def test_an_absurd_learning_rate_fails_the_candidate(tmp_path: Path) -> None:
    absurd = dataclasses.replace(trainer(tmp_path, Fidelity(images=64)), recipe=dataclasses.replace(RECIPE, lr=1e30))
    with pytest.raises(Diverged):
        absurd(small(), 0)
    assert not list(tmp_path.glob("*.pt"))

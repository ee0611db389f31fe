"""Who joins a search knows all of it from the study, and is refused where it could not go on as the others do."""

import dataclasses
from pathlib import Path
from typing import Any

import optuna
import pytest

from latency.published.model import shipped_model
from nas.data import Data
from nas.errors import StudyError
from nas.fidelity import Fidelity
from nas.joining import StudyWork, wanted
from nas.mirror import Mirror
from nas.plan import join, others, publish, sources
from nas.run import open_run
from nas.storage import IDENTITY, PLAN
from searchspace.sampling import RandomSuggest
from searchspace.space import parse_space
from tests.nas.learning import RESOLUTION, shapes
from tests.nas.test_candidates import DATA, trainer

SPACE = parse_space(
    "{format: 1, resolution: 8, stem: {width: 8}, stages: [{depth: [1, 2], width: [8, 16], blocks: {conv: {kernel: [1, 3]}}}]}"
).adapt(channels=1, classes=3)


def published(tmp_path: Path, mirror: Mirror | None = None) -> tuple[StudyWork, optuna.Study]:
    """A search's work, told in its study."""
    work = StudyWork(
        url=f"sqlite:///{tmp_path / 'study.db'}",
        name="search",
        identity={"space": SPACE.fingerprint, "data": [DATA.fingerprint], "target": "pixel6"},
        seed=3,
        space=SPACE,
        model=shipped_model("pixel6"),
        budget_ms=1.0,
        trainer=trainer(tmp_path / "run" / "candidates", Fidelity(images=32), mirror=mirror),
        trials=4,
        pareto=True,
        against=("params", "ms"),
        stages=True,
    )
    study = work.open()
    with open_run(tmp_path / "run", kind="search", request={}) as run:
        publish(study, work, run)
    return work, study


def load(pixels: int, seed: int) -> Data:
    assert (pixels, seed) == (RESOLUTION, 3)
    return DATA


def test_a_worker_knows_what_the_search_does(tmp_path: Path) -> None:
    work, _ = published(tmp_path)
    joined = join(work.url, "search", load)
    network = SPACE.sample(RandomSuggest(seed=0))
    assert joined.model.predict(network).ms == work.model.predict(network).ms
    same = (
        "url",
        "name",
        "identity",
        "space",
        "budget_ms",
        "trials",
        "limits",
        "pareto",
        "against",
        "reward",
        "sampler",
        "stages",
    )
    assert {key: getattr(joined, key) for key in same} == {key: getattr(work, key) for key in same}
    assert joined.seed != work.seed  # or it would draw the same
    assert joined.trainer.folder == work.trainer.folder  # which it can reach
    assert joined.trainer.recipe == work.trainer.recipe
    assert joined.trainer.ladder == work.trainer.ladder


def test_a_worker_that_would_go_on_otherwise_is_refused(tmp_path: Path) -> None:
    work, study = published(tmp_path)
    plan, identity = study.user_attrs[PLAN], study.user_attrs[IDENTITY]

    def refused(reason: str, key: str | None = None, value: Any = None, load: Any = load) -> None:
        if key is not None:
            study.set_user_attr(key, value)
        with pytest.raises(StudyError, match=reason) as told:
            join(work.url, "search", load)
        assert "\n" not in str(told.value)
        study.set_user_attr(PLAN, plan)
        study.set_user_attr(IDENTITY, identity)

    refused(
        "about images of fingerprint shapes-160-0, got shapes-160-1; give the same --data",
        load=lambda *_: shapes(seed=1),
    )
    refused(
        "is of pocketnas 0.0.1, this is .*: all who work on a study need the same", PLAN, plan | {"version": "0.0.1"}
    )
    refused(
        f"was begun with other sources of pocketnas .* \\(fingerprint 0123, here {sources()}\\): all who work",
        PLAN,
        plan | {"sources": "0123"},
    )
    refused("must be of format 1, got 2: a newer version .* upgrade", IDENTITY, identity | {"format": 2})
    refused("does not say what is searched; start `nas search", PLAN, None)
    refused("what is searched is damaged", PLAN, {key: value for key, value in plan.items() if key != "recipe"})
    refused("what is searched is damaged", PLAN, plan | {"rungs": 7})
    refused("its space must have fingerprint", IDENTITY, identity | {"space": "another"})
    refused("latency model cannot be used here", PLAN, plan | {"model": {"format": 99}})
    with pytest.raises(StudyError, match="study 'other' must be one of the storage's, there are: search"):
        join(work.url, "other", load)


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no such file; check --storage"):
        join(f"sqlite:///{tmp_path / 'typo.db'}", "search", load)
    assert list(tmp_path.iterdir()) == []


def test_a_place_for_checkpoints_is_tried_before_anything_is_trained_and_its_password_is_in_no_study(
    tmp_path: Path,
) -> None:
    pytest.importorskip("fsspec", reason="the extra places is not installed")
    (tmp_path / "taken").write_text("a file")
    work, study = published(tmp_path, Mirror("sftp://u:sesame@host/search"))
    assert study.user_attrs[PLAN]["checkpoints"] == "sftp://u@host/search"
    other = dataclasses.replace(
        work, trainer=dataclasses.replace(work.trainer, mirror=Mirror(f"file://{tmp_path / 'taken'}"))
    )
    with open_run(tmp_path / "run", kind="search", request={}) as run:
        publish(study, other, run)
    with pytest.raises(StudyError, match="checkpoints cannot go there"):
        join(work.url, "search", load)


def test_a_worker_shares_its_searchs_place_and_no_other_searchs(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="the extra places is not installed")
    mirror = Mirror(f"file://{tmp_path / 'shared'}")
    work, _ = published(tmp_path, mirror)
    mirror.claim(work.identity)  # as the search does
    assert join(work.url, "search", load).trainer.mirror == mirror
    (tmp_path / "shared" / "search.json").unlink()
    mirror.claim({**work.identity, "target": "pixel1"})
    with pytest.raises(StudyError, match="holds checkpoints of another search"):
        join(work.url, "search", load)


def test_other_studies_of_the_search_are_named_and_more_trials_are_heard_of(tmp_path: Path) -> None:
    work, study = published(tmp_path)
    assert others(study) == []
    assert wanted(study, 2) == 4  # as published
    assert wanted(study, 9) == 9
    with open_run(tmp_path / "run", kind="search", request={}) as run:
        for budget_ms in (0.5, 0.2):
            tighter = dataclasses.replace(work, budget_ms=budget_ms)
            publish(tighter.open(), tighter, run)
        publish(dataclasses.replace(work, name="another").open(), work, run)
    assert others(study) == ["search-0.2ms (0 of 4 trained)", "search-0.5ms (0 of 4 trained)"]


def test_sources_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.py").write_text("a = 1")
    monkeypatch.setattr("nas.plan.resources.files", lambda package: tmp_path)
    first = sources.__wrapped__()
    assert sources.__wrapped__() == first
    (tmp_path / "one.py").rename(tmp_path / "two.py")
    renamed = sources.__wrapped__()
    (tmp_path / "two.py").write_text("a = 2")
    assert len({first, renamed, sources.__wrapped__()}) == 3

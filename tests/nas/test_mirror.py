"""Checkpoints are exchanged through a place that fsspec knows: whole or not at all, and a candidate goes on elsewhere."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import nas.mirror
from nas.checkpoint import load_checkpoint
from nas.errors import StudyError
from nas.fidelity import Fidelity
from nas.mirror import Mirror
from tests.nas.learning import small
from tests.nas.test_candidates import trainer

fsspec = pytest.importorskip("fsspec", reason="the extra places is not installed")


@pytest.fixture(params=["memory", "file"])
def mirror(request: Any, tmp_path: Path) -> Iterator[Mirror]:
    url = "memory://search" if request.param == "memory" else f"file://{tmp_path / 'shared'}"
    yield Mirror(url)
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()


def test_what_one_puts_another_fetches(mirror: Mirror, tmp_path: Path) -> None:
    mirror.check()
    mine, theirs = tmp_path / "a" / "net.rung0.pt", tmp_path / "b" / "net.rung0.pt"
    mine.parent.mkdir()
    mine.write_bytes(b"weights" * 1000)
    assert not mirror.fetch(theirs)
    assert list(theirs.parent.iterdir()) == []  # nothing is left of the attempt
    mirror.put(mine)
    mirror.put(mine)  # once more changes nothing
    assert mirror.fetch(theirs)
    assert theirs.read_bytes() == mine.read_bytes()
    files, folder = fsspec.url_to_fs(mirror.url)
    assert [Path(name).name for name in files.ls(folder, detail=False)] == ["net.rung0.pt"]


def test_a_place_is_one_searchs(mirror: Mirror) -> None:
    identity = {"space": "a1", "seed": 0, "data": ["b2", "c3"]}
    mirror.claim(identity)
    mirror.claim(dict(reversed(identity.items())))  # the same, by whichever machine
    mirror.below("finalists").claim({**identity, "seed": 1})
    with pytest.raises(StudyError, match="holds checkpoints of another search; choose another --checkpoints"):
        mirror.claim({**identity, "data": ["b2", "d4"]})
    mirror.claim(identity)


def test_a_place_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StudyError, match="checkpoints cannot go there"):
        Mirror(f"file://{tmp_path / 'taken'}").check()
    with pytest.raises(StudyError, match="place that fsspec knows"):
        Mirror("nosuch://bucket/search").check()
    path = tmp_path / "net.pt"
    path.write_bytes(b"weights")
    with pytest.raises(StudyError, match=r"net\.pt cannot be written there"):
        Mirror(f"file://{tmp_path / 'taken'}").put(path)
    with pytest.raises(StudyError, match=r"search\.json cannot be read or written there"):
        Mirror(f"file://{tmp_path / 'taken'}").claim({})


class Flaky:
    """A place that raises what drivers raise, some times, and then answers."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times = error, times

    def __getattr__(self, name: str) -> Any:
        def act(*arguments: Any, **options: Any) -> Any:
            self.times -= 1
            if self.times >= 0:
                raise self.error
            return getattr(fsspec.filesystem("file"), name)(*arguments, **options)

        return act


class DriverError(Exception):
    """Not one of the system's."""


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def start(error: Exception, times: int) -> Mirror:
        place = Flaky(error, times)
        monkeypatch.setattr(fsspec, "url_to_fs", lambda url, **_: (place, str(tmp_path / "shared")))
        monkeypatch.setattr("nas.database.TRY_EVERY_S", 0.0)
        nas.mirror._opened.cache_clear()
        return Mirror("sftp://u:sesame@host/search")

    yield start
    nas.mirror._opened.cache_clear()


def test_a_place_that_does_not_answer_for_a_while_is_waited_for(flaky: Any, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "net.pt", tmp_path / "b" / "net.pt"
    mine.write_bytes(b"weights")
    heard: list[str] = []
    dataclasses.replace(flaky(DriverError("no sesame"), 3), on_wait=heard.append).put(mine)
    assert heard == ["waiting for the place for checkpoints, sftp://u@host/search, to answer (no ***)"]
    assert flaky(ConnectionError("reset"), 3).fetch(theirs)
    assert theirs.read_bytes() == b"weights"


def test_a_place_that_stays_away_is_told_in_one_line_without_its_password(
    flaky: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.database.PATIENCE_S", 0.0)
    mirror = flaky(DriverError("no sesame for you\nat all"), 10**9)
    path = tmp_path / "net.pt"
    path.write_bytes(b"weights")
    for act in (mirror.check, lambda: mirror.put(path), lambda: mirror.fetch(path)):
        with pytest.raises(StudyError, match=r"sftp://u@host/search: .* \(no \*\*\* for you\)") as told:
            act()
        assert "\n" not in str(told.value)
    assert path.read_bytes() == b"weights"


def test_a_candidate_goes_on_where_another_process_left_it(tmp_path: Path) -> None:
    ladder, mirror = (Fidelity(images=32), Fidelity(images=32)), Mirror(f"file://{tmp_path / 'shared'}")
    first = trainer(tmp_path / "a", *ladder, mirror=mirror)
    score = first(small(), 0)
    second = trainer(tmp_path / "b", *ladder, mirror=mirror)
    assert second(small(), 0) == score  # fetched: its seconds are the same, too
    second(small(), 1)
    alone = trainer(tmp_path / "c", *ladder)
    alone(small(), 0)
    alone(small(), 1)
    states = [load_checkpoint(one.checkpoint(small(), 1)).state for one in (second, alone)]
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())

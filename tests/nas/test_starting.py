"""A search begins with what another one found, wherever that one's study is; and reading makes no file."""

import dataclasses
from pathlib import Path

import pytest

from nas.checkpoint import load_checkpoint, save_checkpoint
from nas.deployment import random_checkpoint
from nas.errors import StudyError
from nas.starting import starting_networks
from nas.storage import open_storage
from searchspace.recalling import recall
from searchspace.width import set_width, widths
from tests.nas.report.runs import SPACE, architectures, search_run, trimming_run


@pytest.mark.parametrize("study", ["beside", "elsewhere", "elsewhere, with an empty file beside"])
def test_the_best_of_a_run_are_known_wherever_its_study_is(tmp_path: Path, study: str) -> None:
    run = search_run(tmp_path / "run")
    database, notes = run / "study.db", list[str]()
    if study != "beside":
        database.unlink()
    if study.endswith("beside") and study != "beside":
        open_storage(f"sqlite:///{database}")
    networks = starting_networks([str(run)], SPACE, note=notes.append)
    known = {one.fingerprint for one in architectures(5 if study == "beside" else 3)}
    assert {one.fingerprint for one in networks} == known
    assert notes == []
    assert database.exists() is not (study == "elsewhere")


def test_a_folder_without_a_result_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(
        StudyError, match="a network is needed, got a folder; that of a run stands for its network once"
    ):
        starting_networks([str(tmp_path)], SPACE, note=print)
    assert list(tmp_path.iterdir()) == []


def test_a_trimmed_network_starts_a_search_although_it_is_of_no_space(tmp_path: Path) -> None:
    run, notes = trimming_run(tmp_path / "run"), list[str]()
    trimmed = load_checkpoint(run / "step-02.pt").architecture
    odd = set_width(trimmed, widest := max(widths(trimmed), key=lambda width: width.count), widest.count - 3)
    assert recall(SPACE, odd) is None
    save_checkpoint(run / "step-02.pt", random_checkpoint(odd))
    for source in (run, run / "step-02.pt"):
        (network,) = starting_networks([str(source)], SPACE, note=notes.append)
        assert network == dataclasses.replace(odd, channels=SPACE.channels, classes=SPACE.classes)
        assert notes.pop() == (
            f"{source}: 1 of 1 networks are not in this space: they are tried as they are, and none are drawn around them"
        )

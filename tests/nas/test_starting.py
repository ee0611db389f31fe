"""A search begins with what another one found, wherever that one's study is; and reading makes no file."""

from pathlib import Path

import pytest

from nas.errors import StudyError
from nas.starting import starting_networks
from nas.storage import open_storage
from tests.nas.report.runs import SPACE, architectures, search_run


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
    with pytest.raises(StudyError, match="the folder of a finished search is needed to start from"):
        starting_networks([str(tmp_path)], SPACE, note=print)
    assert list(tmp_path.iterdir()) == []

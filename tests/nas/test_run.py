"""Run folders: resumed by the same request only, one process at a time, damage is named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nas.errors import StudyError
from nas.run import network_of, open_run

REQUEST = {"data": "abc", "budget_ms": 2.0, "ladder": (1, 2)}


def test_the_same_request_opens_it_again_and_files_stay(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", kind="search", request=REQUEST) as run:
        run.write_json("result.json", {"best": 1})
    with open_run(tmp_path / "run", kind="search", request=REQUEST) as run:
        assert run.read_json("result.json") == {"best": 1}
        assert run.read_json("missing.json") is None


def test_another_request_or_kind_is_refused_by_name(tmp_path: Path) -> None:
    with open_run(tmp_path, kind="search", request=REQUEST):
        pass
    with (
        pytest.raises(StudyError, match=r"was started with budget_ms 2\.0, now 3\.0 is asked for"),
        open_run(tmp_path, kind="search", request={**REQUEST, "budget_ms": 3.0}),
    ):
        pass
    with (
        pytest.raises(StudyError, match="a 'train' of format 1 is needed"),
        open_run(tmp_path, kind="train", request={}),
    ):
        pass


def test_a_second_process_is_kept_out_until_the_first_ends(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from nas.run import network_of, open_run
from nas.errors import StudyError
try:
    with open_run(Path({str(tmp_path)!r}), kind="search", request={{}}):
        print("in")
except StudyError as error:
    print(error)
"""
    with open_run(tmp_path, kind="search", request={}):
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert "is at work in this run" in out
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "in\n"


def test_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{half")
    with pytest.raises(StudyError, match=r"run\.json: is damaged"), open_run(tmp_path, kind="search", request={}):
        pass


def test_an_impossible_request_frees_the_folder_for_another(tmp_path: Path) -> None:
    with open_run(tmp_path, kind="search", request=REQUEST) as run:
        run.write_json("model.json", {})
        run.withdraw("model.json", "never_made.json")
    with open_run(tmp_path, kind="search", request={**REQUEST, "budget_ms": 3.0}) as run:
        assert run.read_json("model.json") is None


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(StudyError, match="a run needs a folder"), open_run(path, kind="search", request={}):
            pass


def test_a_run_stands_for_its_network(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "finalists").mkdir(parents=True)
    for result, name in (
        ({"best": {"checkpoint": str(run / "finalists" / "a.pt")}}, "finalists/a.pt"),
        ({"checkpoint": str(run / "network.pt")}, "network.pt"),
        ({"path": str(run / "network.nasz")}, "network.nasz"),
    ):
        (run / name).write_text("")
        (run / "result.json").write_text(json.dumps(result))
        assert network_of(run) == run / name
        moved = run.rename(tmp_path / "moved")
        assert network_of(moved) == moved / name
        run = moved.rename(run)
    for result in ({"best": None}, {}):
        (run / "result.json").write_text(json.dumps(result))
        with pytest.raises(StudyError, match="once the run has ended with one"):
            network_of(run)

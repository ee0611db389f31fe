"""Reports of every kind of run: what is in them, what they make of unfinished and damaged runs, and that nothing leaks in."""

import json
import re
from pathlib import Path

import pytest

from nas.errors import ReportError
from nas.report.kinds import page_of
from nas.report.page import render, write_figures
from tests.nas.report.runs import search_run, training_run, trimming_run


@pytest.mark.parametrize(
    ("make", "sections"),
    [
        (search_run, ["Front", "Learning curves", "Candidates", "Rank fidelity"]),
        (trimming_run, ["Path", "Widths"]),
        (training_run, ["Learning curves"]),
    ],
)
def test_each_kind_of_run_has_its_sections(make, sections, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    page = page_of(make(tmp_path / "run"))
    assert [section.heading for section in page.sections] == sections
    assert not page.remarks
    assert page.networks
    html = render(page)
    assert not re.search(r"""(src|href)\s*=\s*["']https?:""", html), "a report needs no network"
    for section in page.sections:
        assert section.heading in html
    for network in page.networks:
        assert f'id="network-{network.fingerprint}"' in html


def test_each_finalist_is_drawn_and_linked(tmp_path: Path) -> None:
    page = page_of(search_run(tmp_path / "run"))
    (front,) = (section for section in page.sections if section.heading == "Front")
    assert front.table is not None
    linked = [row[0].network for row in front.table.rows]
    assert sorted(map(str, linked)) == sorted(network.fingerprint for network in page.networks)
    html = render(page)
    assert all(f'href="#network-{fingerprint}"' in html for fingerprint in linked)


def test_an_unmeasured_finalist_stands_where_it_was_predicted(tmp_path: Path) -> None:
    page = page_of(search_run(tmp_path / "run"))
    figure = page.figures[0]
    (row,) = [row for row in figure.spec["data"]["values"] if row["accuracy"] == 0.65]
    assert row["ms"] == row["predicted_ms"]


@pytest.mark.parametrize("make", [search_run, trimming_run])
def test_an_unfinished_run_shows_what_there_is(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    page = page_of(make(tmp_path / "run", finished=False))
    assert "has not ended" in " ".join(page.remarks)
    assert page.sections
    assert page.networks
    assert render(page)


@pytest.mark.parametrize("name", ["result.json", "study.db", "latency_model.json"])
def test_a_damaged_file_is_remarked_and_the_rest_is_shown(name: str, tmp_path: Path) -> None:
    run = search_run(tmp_path / "run")
    (run / name).write_bytes(b"not what it should be")
    page = page_of(run)
    assert page.remarks
    assert page.networks
    assert render(page)


def test_a_damaged_checkpoint_is_left_out(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run")
    next((run / "finalists").glob("*.pt")).write_bytes(b"PK")
    page = page_of(run)
    assert len(page.networks) == 2
    assert "left out" in " ".join(page.remarks)


def test_a_moved_run_is_read_where_it_is_now(tmp_path: Path) -> None:
    run = search_run(tmp_path / "before").rename(tmp_path / "after")
    assert len(page_of(run).networks) == 3


def test_two_runs_are_compared(tmp_path: Path) -> None:
    page = page_of(search_run(tmp_path / "one"), trimming_run(tmp_path / "two"))
    (section,) = (section for section in page.sections if section.heading.startswith("Compared"))
    assert section.figure is not None
    assert {row["run"] for row in section.figure.spec["data"]["values"]} == {"one", "two"}


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="not there"):
        page_of(tmp_path / "nowhere")
    with pytest.raises(ReportError, match=r"run\.json"):
        page_of(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "picnic"}))
    with pytest.raises(ReportError, match="picnic"):
        page_of(tmp_path)


def test_text_of_a_run_cannot_become_a_part_of_the_page(tmp_path: Path) -> None:
    run = trimming_run(tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    hostile = "</script><script>alert(1)</script>"
    result["steps"][1]["what"] = hostile
    (run / "result.json").write_text(json.dumps(result))
    html = render(page_of(run))
    assert hostile not in html
    assert "<script>alert" not in html


def test_figures_as_files(tmp_path: Path) -> None:
    page = page_of(trimming_run(tmp_path / "run"))
    written = write_figures(page, tmp_path / "figures")
    assert {path.name for path in written} == {"path.svg", "path.png", "widths.svg", "widths.png"}
    assert (tmp_path / "figures" / "path.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "figures" / "path.svg").read_text()

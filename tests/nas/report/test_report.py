"""Reports of every kind of run: what is in them, what they make of unfinished and damaged runs, and that nothing leaks in."""

import json
import re
import shutil
from pathlib import Path

import optuna
import pytest

from nas.claims import DEATHS, DEATHS_AT_MOST, FAILED
from nas.costs import title_of
from nas.errors import ReportError
from nas.outcomes import ERROR
from nas.report.content import Page, Section
from nas.report.kinds import page_of
from nas.report.page import render, write_figures
from nas.sampling.history import CANDIDATE, OUTCOME
from nas.storage import LIMITS, STUDY_FILE, open_study
from searchspace.architecture import lower
from tests.nas.report.runs import (
    MODELLED,
    architectures,
    compression_run,
    latency_model,
    search_run,
    training_run,
    trimming_run,
)

MAKERS = [search_run, trimming_run, training_run, compression_run]


@pytest.mark.parametrize(
    ("make", "sections"),
    [
        (search_run, ["Front", "Learning curves", "Candidates", "Rank fidelity", "Latency model"]),
        (trimming_run, ["Path", "Widths"]),
        (training_run, ["Learning curves"]),
        (compression_run, ["Stages", "Sizes"]),
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


def test_the_latency_models_error_is_drawn_and_its_milliseconds_stage_by_stage(tmp_path: Path) -> None:
    page = page_of(search_run(tmp_path / "run"))
    (section,) = (section for section in page.sections if section.heading == "Latency model")
    assert "within ±10 %" in section.text and "flatters it" in section.text
    assert section.figure is not None
    rows = section.figure.spec["data"]["values"]
    assert sum(row["which"] == "fitted to (in sample)" for row in rows) == MODELLED
    (first, second) = (row for row in rows if row["which"] == "this run's")
    assert first["error"] == pytest.approx(second["error"]) == pytest.approx(1 / 1.01 - 1)
    model = latency_model()
    networks = {architecture.fingerprint: architecture for architecture in architectures(3)}
    for drawn in page.networks:
        told = dict(model.explain(networks[drawn.fingerprint]))
        assert all(part.ms == pytest.approx(told[part.place]) for part in drawn.parts)
        assert drawn.longest_ms > 0


def test_an_unmeasured_finalist_stands_where_it_was_predicted(tmp_path: Path) -> None:
    page = page_of(search_run(tmp_path / "run"))
    figure = page.figures[0]
    (row,) = [row for row in figure.spec["data"]["values"] if row["accuracy"] == 0.65]
    assert row["ms"] == row["predicted_ms"]


def told(run: Path, **more: object) -> Path:
    """The run, its result saying more."""
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | more))
    return run


@pytest.mark.parametrize("against", [["params"], ["peak-bytes", "ms", "pixel1"]])
def test_the_front_is_drawn_against_the_first_cost_and_all_are_told(tmp_path: Path, against: list[str]) -> None:
    run = search_run(tmp_path / "run")
    finalists = json.loads((run / "result.json").read_text())["finalists"]
    for index, entry in enumerate(finalists):
        entry["costs"] = dict.fromkeys(against, 1000.0 * (3 - index))
    page = page_of(told(run, against=against, finalists=finalists, front=finalists[:2]))
    assert not page.remarks
    (front,) = (section for section in page.sections if section.heading == "Front")
    assert front.figure is not None and front.table is not None
    layers = front.figure.spec["layer"]
    axes = {layer["encoding"]["x"]["title"] for layer in layers}
    assert axes == {title_of(against[0])}
    assert title_of(against[0]) in front.figure.title
    assert [row["cost"] for row in front.figure.spec["data"]["values"]] == [1000.0, 2000.0, 3000.0]
    assert any(layer["mark"]["type"] == "line" for layer in layers) == (len(against) == 1)
    for name in against:
        assert name == "ms" or title_of(name) in front.table.headings
        assert name == "ms" or title_of(name) in front.text
    assert ("accuracy is weighed against", ", ".join(map(title_of, against))) in page.facts


def test_candidates_are_drawn_against_the_first_cost(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run", costs=("params", "ms"))
    (section,) = (section for section in page_of(run).sections if section.heading == "Candidates")
    assert section.figure is not None
    assert section.figure.spec["encoding"]["x"]["title"] == "parameters"
    params = sorted(lower(network).params for network in architectures(6))
    assert sorted(row["cost"] for row in section.figure.spec["data"]["values"]) == params


def test_a_corrected_latency_model_is_told_with_what_was_done_about_it(tmp_path: Path) -> None:
    correction = {"factor": 1.25, "outside": 3, "measured": 3, "reference_change": 0.2, "target": "host"}
    page = page_of(told(search_run(tmp_path / "run"), correction=correction))
    (remark,) = page.remarks
    assert "3 of 3 finalists were measured outside their intervals, in the median at 1.25 of the prediction" in remark
    assert "the finalists were chosen again" in remark and "those of the candidates" in remark
    assert "the finalists were chosen again" in render(page)
    sections = {section.heading: section for section in page.sections}
    assert "model's interval, corrected" in sections["Front"].text
    figure = sections["Latency model"].figure
    assert figure is not None
    errors = [row["error"] for row in figure.spec["data"]["values"] if row["which"] == "this run's"]
    assert errors == pytest.approx([1 / 1.01 / 1.25 - 1] * 2), "the model's own"
    for odd in (correction | {"factor": 0.0}, [1], {"factor": "much"}):
        assert "Correction: left out" in " ".join(page_of(told(tmp_path / "run", correction=odd)).remarks)


def test_limits_redraws_doubts_and_failures_are_told(tmp_path: Path) -> None:
    run = told(search_run(tmp_path / "run"), redraws=1234, doubts=["no network alike was published"])
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{run / 'study.db'}")
    study.set_user_attr(LIMITS, {"budget_ms": 0.5, "weight_bytes": 200000, "latency on pixel6": 1.5})
    candidate = {"fingerprint": "0123456789abcdef"}
    for attributes in ({ERROR: "ValueError: no"}, {DEATHS: DEATHS_AT_MOST - 1}, {}):
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.FAIL, user_attrs={OUTCOME: FAILED, CANDIDATE: candidate, **attributes}
            )
        )
    (run / "finalists" / "fedc.failed").write_text("the loss became nan within 64 images; lower it")
    (run / "finalists" / f"{architectures(1)[0].fingerprint}.notes").write_text("labels were damaged\n")
    page = page_of(run)
    facts = dict(page.facts)
    assert (facts["weight bytes"], facts["latency on pixel6"]) == ("at most 200,000", "at most 1.5 ms")
    assert facts["drawn again instead of tried"] == "1,234"
    assert page.remarks == ("predictions are rough here: no network alike was published", "labels were damaged")
    (failed,) = (section.table for section in page.sections if section.heading == "Failed")
    assert failed is not None
    assert [tuple(cell.text for cell in row) for row in failed.rows] == [
        ("0123456789abcdef", "candidate", "ValueError: no"),
        ("0123456789abcdef", "candidate", "every process that trained it died"),
        ("0123456789abcdef", "candidate", "the loss became infinite or not a number"),
        ("fedc", "finalist", "the loss became nan within 64 images"),
    ]


@pytest.mark.parametrize("make", MAKERS)
def test_an_unfinished_run_shows_what_there_is(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    page = page_of(make(tmp_path / "run", finished=False))
    assert "has not ended" in " ".join(page.remarks)
    assert page.sections
    assert page.networks or make is training_run
    assert render(page)


def test_candidates_are_those_of_the_study_that_was_opened_last(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run", finished=False, study_name="photos")
    assert [section.heading for section in page_of(run).sections] == ["Candidates", "Learning curves", "Latency model"]
    run = search_run(tmp_path / "other", study_name="photos")
    open_study(f"sqlite:///{run / 'study.db'}", "photos-2ms", identity={})
    (run / STUDY_FILE).write_text(json.dumps({"study": "photos-2ms"}))
    page = page_of(run)
    assert "study `photos-2ms`" in " ".join(page.remarks)
    headings = [section.heading for section in page.sections]
    assert "Front" in headings and "Candidates" not in headings, "the study of another budget has no candidates yet"


def test_candidates_in_a_database_are_told_of_and_shown_where_it_is_given(tmp_path: Path) -> None:
    run = search_run(tmp_path / "run")
    candidates = [section for section in page_of(run).sections if section.heading == "Candidates"]
    url = f"sqlite:///{(run / 'study.db').rename(tmp_path / 'elsewhere.db')}"
    page = page_of(run)
    assert "Candidates" not in [section.heading for section in page.sections]
    (remark,) = page.remarks
    assert "`nas report RUN --storage URL` shows them" in remark
    for first, second in ((run, None), (training_run(tmp_path / "training"), run)):
        page = page_of(first, second, storage=url)
        assert not page.remarks
        assert second or [section for section in page.sections if section.heading == "Candidates"] == candidates
    (run / STUDY_FILE).write_text(json.dumps({"study": "other"}))
    assert "the storage has no study 'other'" in " ".join(page_of(run, storage=url).remarks)
    page = page_of(search_run(tmp_path / "another"), storage="sqlite:///nowhere.db")
    assert not page.remarks, "its study lies in its folder"


@pytest.mark.parametrize("finished", [True, False])
def test_milliseconds_of_a_trimming_say_what_they_rest_on(finished: bool, tmp_path: Path) -> None:
    run = trimming_run(tmp_path / "run", finished=finished)
    latency_model().save(run / "latency_model.json")
    page = page_of(run)
    assert dict(page.facts)["target"] == "host (measured)"
    (section,) = (section for section in page.sections if section.heading == "Path")
    assert section.table is not None and "predicted ms (measured)" in section.table.headings


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


def comparison(page: Page) -> Section:
    (section,) = (section for section in page.sections if section.heading.startswith("Compared"))
    return section


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("make", MAKERS)
def test_any_two_runs_are_compared(make, finished: bool, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    second = make(tmp_path / "two", finished=finished)
    for first in (search_run, training_run):
        first_run = first(tmp_path / first.__name__)
        page = page_of(first_run, second)
        section = comparison(page)
        assert section.table is not None
        assert {row[0].text for row in section.table.rows} == {first.__name__, "two"}
        assert section.figure is not None
        drawn = {row.get("run", row["network"]) for row in section.figure.spec["data"]["values"]}
        with_ms = {search_run: {first.__name__}}.get(first, set()) | (
            {"two"} if make in (search_run, trimming_run) else set()
        )
        with_curve = {first.__name__, "two"} if make is training_run else {first.__name__}
        assert drawn == (with_ms or with_curve)
        assert any("two: " in remark and "has not ended" in remark for remark in page.remarks) == (not finished)
        if finished:
            networks = {network.fingerprint for one in (first_run, second) for network in page_of(one).networks}
            assert sorted(network.fingerprint for network in page.networks) == sorted(networks)
        owners = {str(first_run), str(second), f"{first_run}, {second}"}
        assert {dict(network.facts)["run"] for network in page.networks} <= owners
        assert render(page)


def test_remarks_about_the_second_run_are_told(tmp_path: Path) -> None:
    first, second = search_run(tmp_path / "one"), search_run(tmp_path / "two")
    (second / "result.json").write_text("[]")
    assert f"{second}: result.json is damaged and left out" in page_of(first, second).remarks


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[object, Path]:
    """A run of each kind."""
    return {make: make(tmp_path_factory.mktemp("runs") / "run") for make in MAKERS}


@pytest.mark.parametrize(
    ("make", "name", "odd"),
    [
        (search_run, "run.json", ("request", None)),
        *((search_run, "result.json", ("finalists", value)) for value in (None, [{}], [1], {})),
        *((search_run, "result.json", ("front", value)) for value in (None, [{}], "networks")),
        *((search_run, "result.json", (key, value)) for key in ("rungs", "trials", "best") for value in (3, ["a"])),
        *((trimming_run, "result.json", ("steps", value)) for value in (None, [{}], ["step"])),
        (trimming_run, "result.json", ("start_ms", "fast")),
        *((training_run, "result.json", ("curve", value)) for value in (None, [3], {"images": 1})),
        (training_run, "run.json", ("request", [])),
        *((compression_run, "result.json", odd) for odd in (("tensors", [{}]), ("bytes", None))),
    ],
)
def test_a_file_of_another_form_is_remarked_and_the_rest_is_shown(  # type: ignore[no-untyped-def]
    make, name: str, odd: tuple[str, object], whole: dict[object, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(whole[make], tmp_path / "run")
    content = json.loads((run / name).read_text())
    (run / name).write_text(json.dumps(content | dict([odd])))
    page = page_of(run, whole[trimming_run])
    assert page.remarks
    assert page.networks
    assert render(page)
    assert page_of(whole[trimming_run], run).sections


def test_every_byte_of_a_compressed_file_is_accounted_for(tmp_path: Path) -> None:
    run = compression_run(tmp_path / "run")
    page = page_of(run)
    (sizes,) = (section for section in page.sections if section.heading == "Sizes")
    assert sizes.table is not None and sizes.figure is not None
    written = (run / "network.nasz").stat().st_size
    assert sum(int(row[-1].text.replace(",", "")) for row in sizes.table.rows) == written
    assert sum(row["after"] for row in sizes.figure.spec["data"]["values"]) == written
    assert dict(page.facts)["accuracy (test split)"] == "60.00% → 57.00%"


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

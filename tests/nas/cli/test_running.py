"""What stays with a run: the target that `pixel` stood for, and the latency model with what it is worth."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from latency import adb
from latency.address import AdbAddress
from latency.errors import DeviceUnavailable
from latency.published.model import shipped_model
from latency.target import PIXEL, Target, load_target, pixel_phone
from nas.cli.running import model_of, run_name, target_of_run, told_of
from nas.run import Run, open_run
from tests.latency.profiled import fake_model


@pytest.fixture(autouse=True)
def no_phone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "attached", lambda: ())


def begun(folder: Path, target: Target) -> Path:
    """A run that was started for a target."""
    with open_run(folder, kind="search", request={"target": target.name}):
        return folder


def resumed(folder: Path, asked: str, means: Target) -> Target:
    target = target_of_run(asked, means, folder)
    with open_run(folder, kind="search", request={"target": target.name}):  # would be refused for another one
        return target


def test_a_run_for_an_attached_phone_goes_on_without_it(tmp_path, capsys) -> None:
    folder = begun(tmp_path / "run", pixel_phone(("1A2B",)))
    without = load_target(PIXEL)
    assert without.name == "pixel6"
    target = resumed(folder, PIXEL, without)
    assert target == pixel_phone()
    assert target.settings == pixel_phone(("1A2B",)).settings
    assert "was begun for an attached Pixel phone" in capsys.readouterr().err
    device = target.open()  # its absence is met where it is measured on, which a search survives
    with (
        pytest.raises(DeviceUnavailable, match="a Pixel phone must be attached"),
        device.reserve("measuring finalists"),
    ):
        pass


def test_a_run_without_a_phone_goes_on_so_when_one_is_attached(tmp_path, capsys) -> None:
    folder = begun(tmp_path / "run", load_target("pixel6"))
    assert resumed(folder, PIXEL, pixel_phone(("1A2B",))) == load_target("pixel6")
    assert "begin another run with --out" in capsys.readouterr().err


@pytest.mark.parametrize("means", [load_target("pixel6"), pixel_phone(("1A2B",))])
def test_where_nothing_changed_nothing_is_said(tmp_path, capsys, means) -> None:
    assert target_of_run(PIXEL, means, tmp_path / "new") == means
    folder = begun(tmp_path / "run", means)
    assert target_of_run(PIXEL, means, folder) == means
    assert capsys.readouterr().err == ""
    assert run_name(PIXEL, means) == "pixel"


def test_runs_of_other_targets_are_left_to_be_refused(tmp_path) -> None:
    host, pixel6 = load_target("host"), load_target("pixel6")
    folder = begun(tmp_path / "run", host)
    assert target_of_run(PIXEL, pixel6, folder) == pixel6
    assert target_of_run("pixel6", pixel6, begun(tmp_path / "other", pixel_phone())) == pixel6
    (folder / "run.json").write_text("[]")
    assert target_of_run(PIXEL, pixel6, folder) == pixel6
    assert run_name("host", host) == "host"


def test_pixel_means_phones_that_are_pixels() -> None:
    assert pixel_phone().address == AdbAddress(model="Pixel")


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path, "search", {})


def test_what_a_model_is_worth_is_told_again_when_a_run_goes_on(run, capsys) -> None:
    model, target = shipped_model("pixel6"), load_target("pixel6")
    for find in (lambda *_, **__: model, pytest.fail):
        assert model_of(run, target, find, None) == model
        told = capsys.readouterr().err
        assert told.replace("\n", " ").strip() == model.remark
    assert told_of(model) == {"basis": "published", "remark": model.remark, "emulated": False}


def test_an_emulated_processor_is_told_of(run, capsys) -> None:
    real = fake_model()
    emulated = dataclasses.replace(real, provenance=dataclasses.replace(real.provenance, cpu="emulated aarch64"))
    for find in (lambda *_, **__: emulated, pytest.fail):
        model_of(run, load_target("host"), find, None)
        assert "host is emulated" in capsys.readouterr().err
    expected: dict[str, Any] = {"basis": "measured", "remark": None, "emulated": True}
    assert told_of(emulated) == expected
    assert told_of(real) == {**expected, "emulated": False}

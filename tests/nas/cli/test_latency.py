"""`nas profile`, `nas predict` and `nas measure` on a pretended device: what they print, and what they refuse."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from latency.errors import DeviceUnreachable
from latency.fake import DATE, FakeDevice
from latency.model import LatencyModel
from latency.profiling import JOB, write_measurements
from latency.provenance import Provenance
from latency.readiness import Readiness
from latency.store import model_path
from latency.timing import Slice, Timing
from nas.cli import console, main
from nas.cli.console import fail, note
from nas.cli.latency import warn_of_emulation
from searchspace.architecture import Architecture
from searchspace.blocks import Conv
from tests.latency.models import small_model, with_input_sizes
from tests.latency.profiled import fake_model


class SlowerDevice(FakeDevice):
    """A device that has become slower by half since its model was made."""

    def measure(self, models: Any, **options: Any) -> Any:
        return [
            Timing(tuple(Slice(tuple(ns * 3 // 2 for ns in part.ns), part.probe_ns) for part in timing.slices))
            for timing in super().measure(models, **options)
        ]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of latency models, with one of the pretended device, which stands for the host."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("latency.target.Target.open", lambda target: FakeDevice())
    monkeypatch.setattr("latency.store.require_equal", lambda *arguments: None)  # the pretended CPU is not this one
    folder = tmp_path / "pocketnas" / "latency"
    folder.mkdir(parents=True)
    model = fake_model()
    model.save(model_path("host", model.provenance, model.settings))
    return folder


def nas(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Runs the command line in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["nas", *arguments])
    try:
        main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


def test_a_check_that_passes_and_one_that_does_not(models, monkeypatch, capsys) -> None:
    assert nas(monkeypatch, "profile", "--check", "--json") == 0
    found = told(capsys)
    assert found["holds"] is True
    assert found["change"] == pytest.approx(0.0, abs=1e-3)
    monkeypatch.setattr("latency.target.Target.open", lambda target: SlowerDevice())
    assert nas(monkeypatch, "profile", "--check") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no longer holds: 8 of its networks take +50.0%" in printed.err
    assert "nas profile --target host --recalibrate" in printed.err


def test_a_processor_at_another_speed_is_named_as_the_reason(models, monkeypatch, capsys) -> None:
    class Throttled(SlowerDevice):
        def measure(self, models, **options):
            for timing in super().measure(models, **options):
                slices = (dataclasses.replace(part, probe_ns=part.probe_ns * 8 // 5) for part in timing.slices)
                yield Timing(tuple(slices))

    monkeypatch.setattr("latency.target.Target.open", lambda target: Throttled())
    assert nas(monkeypatch, "profile", "--check") == 2
    assert "plain arithmetic +60%: the processor runs at another speed now" in capsys.readouterr().err


def test_recalibrating_makes_it_hold(models, monkeypatch, capsys) -> None:
    monkeypatch.setattr("latency.target.Target.open", lambda target: SlowerDevice())
    assert nas(monkeypatch, "profile", "--recalibrate", "--json") == 0
    assert set(told(capsys)) >= {"target", "networks", "device_seconds", "held_out", "noise_median", "noise_p95"}
    assert nas(monkeypatch, "profile", "--check", "--json") == 0
    assert told(capsys)["holds"] is True
    [path] = models.glob("*.json")
    assert len(LatencyModel.load(path).measurements) == len(fake_model().measurements)


@pytest.mark.parametrize(
    "other",
    [
        ("--minutes", "1"),
        ("--networks", "20"),
        ("--space", "default"),
        ("--like", "mobilenet_v2"),
        ("--tolerance", "0.1"),
        ("--channels", "1"),
    ],
)
def test_a_check_takes_no_options_of_measuring_more(models, monkeypatch, capsys, other) -> None:
    assert nas(monkeypatch, "profile", "--check", *other) == 2
    assert "--check and --recalibrate take no" in capsys.readouterr().err


def test_profile_reports_what_it_promises_and_goes_on(models, monkeypatch, capsys) -> None:
    for networks in (24, 36):
        assert nas(monkeypatch, "profile", "--networks", str(networks), "--json") == 0
        found = told(capsys)
        assert found["networks"] == networks
        assert set(found["held_out"]) >= {"n", "within_5", "within_10", "median_error", "p95_error", "spearman"}


@pytest.mark.parametrize(
    ("resolution", "options", "pixels"), [("null", (), 32), ("48", (), 48), ("48", ("--resolution", "64"), 64)]
)
def test_a_space_is_profiled_at_the_targets_resolution(models, monkeypatch, resolution, options, pixels) -> None:
    file = models / "board.yaml"
    file.write_text(f"name: board\ndevice: {{kind: host}}\nresolution: {resolution}\n")
    command = ("profile", "--target", str(file), "--space", "default", "--networks", "24", *options)
    assert nas(monkeypatch, *command, "--json") == 0
    [path] = models.glob("board-*.json")
    assert {one.architecture.resolution for one in LatencyModel.load(path).measurements} == {pixels}


def test_a_space_is_profiled_with_the_channels_and_classes_of_the_data(models, monkeypatch) -> None:
    file = models / "grey.yaml"
    file.write_text("name: grey\ndevice: {kind: host}\n")
    command = ("profile", "--target", str(file), "--space", "default", "--networks", "12", "--resolution", "16")
    assert nas(monkeypatch, *command, "--channels", "1", "--classes", "3") == 0
    [path] = models.glob("grey-*.json")
    measured = [one.architecture for one in LatencyModel.load(path).measurements]
    assert {(one.channels, one.classes, one.resolution) for one in measured} == {(1, 3, 16)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--resolution", "64"), "--resolution 64 must go with --space or --like"),
        (("--channels", "1", "--classes", "3"), "--classes 3 and --channels 1 must go with --space or --like"),
        (("--space", "default", "--width-multiplier", "0.5"), "--width-multiplier is of a network"),
        (("--networks", "5"), "networks must be at least 12"),
        (("--tolerance", "2"), "--tolerance must be above 0 and below 1"),
        (("--like", "mobilenet_v2", "--width-multiplier", "-1"), "width"),
    ],
)
def test_options_that_say_nothing_are_refused_before_anything_is_measured(
    models, monkeypatch, capsys, options, message
) -> None:
    monkeypatch.setattr(FakeDevice, "measure", lambda *_, **__: pytest.fail("nothing need be measured to say so"))
    assert nas(monkeypatch, "profile", *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("reason", "code"), [(KeyboardInterrupt, 130), (DeviceUnreachable, 2)])
def test_a_profile_that_ends_early_leaves_a_model_and_says_so(models, monkeypatch, capsys, reason, code) -> None:
    class Ending(FakeDevice):
        jobs = 0

        def measure(self, models, **options):
            self.jobs += 1
            if self.jobs == 3:
                raise reason("the cable was pulled")
            return super().measure(models, **options)

    [path] = models.glob("*.json")
    path.unlink()
    monkeypatch.setattr("latency.target.Target.open", lambda target: Ending())
    assert nas(monkeypatch, "profile", "--networks", "48") == code
    assert f"a latency model of the {2 * JOB} networks measured so far was saved" in capsys.readouterr().err
    assert len(LatencyModel.load(path).measurements) == 2 * JOB


def test_the_tolerance_is_what_is_asked_for(models, monkeypatch, capsys, tmp_path) -> None:
    assert nas(monkeypatch, "profile", "--networks", "12", "--tolerance", "0.05") == 0
    [path] = models.glob("*.json")
    assert {one.timing.tolerance for one in LatencyModel.load(path).measurements} == {0.05}
    efforts = []
    measured = FakeDevice.measure

    def measure(self, models, *, effort, **options):
        efforts.append((effort.tolerance, effort.limit_s))
        return measured(self, models, effort=effort, **options)

    monkeypatch.setattr(FakeDevice, "measure", measure)
    assert nas(monkeypatch, "measure", "mobilenet_v3_small", "--tolerance", "0.1", "--limit-s", "3") == 0
    assert nas(monkeypatch, "measure", "mobilenet_v3_small") == 0
    assert efforts == [(0.1, 3.0), (0.02, 20.0)]
    for wrong in (("--tolerance", "0"), ("--limit-s", "0"), ("--limit-s", "nan")):
        capsys.readouterr()
        assert nas(monkeypatch, "measure", "mobilenet_v3_small", *wrong) == 2
        assert f"{wrong[0]} must be above 0" in capsys.readouterr().err


def test_a_network_with_a_kernel_never_measured_is_known_after_the_command_that_the_message_names(
    models, monkeypatch, capsys, tmp_path
) -> None:
    [path] = models.glob("*.json")
    write_measurements(path.with_suffix(".jsonl"), fake_model().measurements)  # what profiling left beside the model
    file = tmp_path / "nine.json"
    blocks = (Conv(cout=16, stride=2), Conv(cout=16, kernel=9))
    file.write_text(json.dumps(Architecture(blocks, resolution=32).to_dict()))
    assert nas(monkeypatch, "predict", str(file)) == 2
    command = f"nas profile --target host --like {file}"
    assert command in capsys.readouterr().err
    assert nas(monkeypatch, *command.split()[1:]) == 0
    assert nas(monkeypatch, "predict", str(file)) == 0


def test_a_run_stands_for_its_network(models, monkeypatch, tmp_path) -> None:
    architecture = Architecture((Conv(cout=16, stride=2),), resolution=32)
    run = tmp_path / "run"
    run.mkdir()
    (run / "net.json").write_text(json.dumps(architecture.to_dict()))
    (run / "result.json").write_text('{"checkpoint": "net.json"}')
    [path] = models.glob("*.json")
    write_measurements(path.with_suffix(".jsonl"), fake_model().measurements)
    assert nas(monkeypatch, "profile", "--like", str(run)) == 0
    measured = {one.architecture.fingerprint for one in LatencyModel.load(path).measurements}
    assert architecture.fingerprint in measured


def test_the_command_that_the_message_names_has_the_options_that_made_the_network(models, monkeypatch, capsys) -> None:
    [path] = models.glob("*.json")
    write_measurements(path.with_suffix(".jsonl"), fake_model().measurements)
    model = LatencyModel.load(path)
    dataclasses.replace(model, measured=frozenset()).save(path)  # as if all were new
    given = ("mobilenet_v3_small", "--width-multiplier", "0.75", "--resolution", "64", "--channels", "1")
    assert nas(monkeypatch, "predict", *given) == 2
    command = f"nas profile --target host --like {' '.join(given)}"
    assert command in capsys.readouterr().err
    assert nas(monkeypatch, *command.split()[1:]) == 0
    assert nas(monkeypatch, "predict", *given) == 0
    channels = {one.architecture.channels for one in LatencyModel.load(path).measurements}
    assert channels == {1, 3}


def test_an_explanation_adds_up_by_block_and_by_kernel(models, monkeypatch, capsys) -> None:
    arguments = ("predict", "mobilenet_v2", "--resolution", "64", "--explain")
    assert nas(monkeypatch, *arguments, "--json") == 0
    [found] = told(capsys)["predictions"]
    for part in ("blocks", "kernels"):
        assert sum(one["ms"] for one in found[part]) == pytest.approx(found["ms"])
    assert nas(monkeypatch, *arguments) == 0
    assert f"most of it is {found['kernels'][0]['name']}" in capsys.readouterr().out


def test_one_network_is_measured_beside_its_prediction(models, monkeypatch, capsys) -> None:
    assert nas(monkeypatch, "measure", "mobilenet_v2", "--resolution", "64", "--ops", "--json") == 0
    found = told(capsys)
    wanted = {"median_ms", "p90_ms", "mad_ms", "runs", "stable", "predicted_ms", "ops", "peak_bytes"}
    assert set(found) >= wanted
    assert found["predicted_ms"] == pytest.approx(found["median_ms"], rel=0.2)
    assert found["peak_bytes"] > 0
    assert {node["op"] for node in found["ops"]} >= {"Conv", "Gemm"}


def test_several_are_compared_with_the_first_also_foreign_models(models, monkeypatch, capsys, tmp_path) -> None:
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(small_model())
    names = [str(foreign), "mobilenet_v3_small", "mobilenet_v2"]
    assert nas(monkeypatch, "measure", *names, "--resolution", "64", "--json") == 0
    found = told(capsys)
    assert [row["name"] for row in found["networks"]] == [row["name"] for row in found["ratios"]] == names
    assert [row["predicted_ms"] is None for row in found["networks"]] == [True, False, False]
    first = found["networks"][0]["low_ms"]
    for row, ratio in zip(found["networks"], found["ratios"], strict=True):
        assert ratio["ratio"] == pytest.approx(row["low_ms"] / first)
        assert ratio["low"] <= ratio["ratio"] <= ratio["high"]


def test_sizes_that_a_foreign_model_leaves_open_are_asked_for(models, monkeypatch, capsys, tmp_path) -> None:
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(with_input_sizes(small_model(), ("n", 3, "h", "w")))
    assert nas(monkeypatch, "measure", str(foreign)) == 2
    assert "open are height (h) of input 'x', width (w) of input 'x': give --resolution" in capsys.readouterr().err
    found = {}
    for resolution in (16, 64):
        assert nas(monkeypatch, "measure", str(foreign), "--resolution", str(resolution), "--json") == 0
        found[resolution] = told(capsys)["median_ms"]
    assert found[64] > found[16]


def test_a_foreign_model_with_weights_beside_it_is_measured(models, monkeypatch, capsys, tmp_path) -> None:
    ms = []
    for name, options in {"whole.onnx": {}, "parts.onnx": {"save_as_external_data": True, "size_threshold": 0}}.items():
        onnx.save_model(onnx.load_from_string(small_model()), str(tmp_path / name), **options)
        assert nas(monkeypatch, "measure", str(tmp_path / name), "--classes", "3", "--json") == 0
        printed = capsys.readouterr()
        assert f"--classes 3 does not apply to {tmp_path / name}" in printed.err
        ms.append(json.loads(printed.out)["median_ms"])
    assert ms[0] == ms[1]


def test_a_float_model_on_a_target_of_8_bits_is_said_to_be_one(models, monkeypatch, capsys, tmp_path) -> None:
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(small_model())
    for target, said in (("host-int8", True), ("host", False)):
        assert nas(monkeypatch, "measure", str(foreign), "--target", target, "--json") == 0
        assert ("computes in float32 and is measured so" in capsys.readouterr().err) is said


def test_raw_measurements_are_written_with_their_provenance(models, monkeypatch, capsys, tmp_path) -> None:
    file = tmp_path / "samples.json"
    names = ["mobilenet_v3_small", "small.onnx"]
    (tmp_path / "small.onnx").write_bytes(small_model())
    monkeypatch.chdir(tmp_path)
    assert nas(monkeypatch, "measure", *names, "-o", str(file), "--json") == 0
    found = told(capsys)
    assert found["output"] == str(file)
    written = json.loads(file.read_text())
    provenance = Provenance.from_json(written["provenance"])
    assert (provenance.date, provenance.bound, provenance.cpu) == (DATE, (0,), found["cpu"])
    assert written["settings"]["threads"] == 1
    assert [(one["name"], one["batch"]) for one in written["networks"]] == [(name, 1) for name in names]
    timings = [Timing.from_json(one["timing"]) for one in written["networks"]]
    assert [timing.median_ms for timing in timings] == [row["median_ms"] for row in found["networks"]]
    monkeypatch.setattr("latency.target.Target.open", lambda target: pytest.fail("no device is needed to say so"))
    assert nas(monkeypatch, "measure", *names, "-o", "nowhere/samples.json") == 2
    assert "-o nowhere/samples.json: must be a file in a folder that there is" in capsys.readouterr().err


def test_a_measurement_that_met_no_full_speed_is_told_in_words(models, monkeypatch, capsys) -> None:
    class Throttled(FakeDevice):
        def measure(self, models, **options):
            return [dataclasses.replace(one, quiet_ns=1) for one in super().measure(models, **options)]

    monkeypatch.setattr("latency.target.Target.open", lambda target: Throttled())
    monkeypatch.setenv("COLUMNS", "200")
    assert nas(monkeypatch, "measure", "mobilenet_v3_small") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("NO,", "hardly", "undisturbed", "speed"))  # a table may break lines
    assert str(math.inf) not in printed


def test_people_get_a_table(models, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert nas(monkeypatch, "measure", "mobilenet_v3_small", "--resolution", "32", "--ops") == 0
    printed = capsys.readouterr().out
    assert "Measured on host" in printed
    assert "Conv" in printed


def test_a_missing_model_is_one_line(models, monkeypatch, capsys) -> None:
    assert nas(monkeypatch, "measure", "nowhere.onnx") == 2
    assert "nowhere.onnx: an ONNX model is needed" in capsys.readouterr().err


def test_published_targets_predict_and_say_so(monkeypatch, capsys) -> None:
    assert nas(monkeypatch, "predict", "mobilenet_v2", "squeezenet_1_1", "--target", "pixel1", "--json") == 0
    found = told(capsys)
    assert [one["basis"] for one in found["predictions"]] == ["published", "published"]
    assert "not measured" in found["remark"]
    assert found["predictions"][0]["doubts"] == []
    assert "convolution 3×3" in found["predictions"][1]["doubts"][0]
    assert nas(monkeypatch, "profile", "--target", "pixel") == 2
    assert "nothing can be measured on it: attach a Pixel phone" in capsys.readouterr().err


def test_emulated_processors_are_warned_of(capsys) -> None:
    real = FakeDevice().describe()
    warn_of_emulation("board", real)
    assert capsys.readouterr().err == ""
    warn_of_emulation("board", dataclasses.replace(real, cpu="Pixel 6: emulated aarch64"))
    assert "board is emulated (Pixel 6: emulated aarch64)" in capsys.readouterr().err


def test_a_runtime_that_no_latency_model_knows_is_refused_at_once(models, monkeypatch, capsys, tmp_path) -> None:
    target = tmp_path / "plain.yaml"
    target.write_text("name: plain\ndevice: {kind: host}\nruntime: {graph_level: basic}\n")
    monkeypatch.setattr("latency.target.Target.open", lambda target: pytest.fail("no device is needed to say so"))
    for command in (
        ("profile", "--target", str(target)),
        ("search", "--target", str(target)),
        ("search", "--target", "pixel1", "--also", f"{target}=1"),
        ("predict", "mobilenet_v2", "--target", str(target)),
    ):
        assert nas(monkeypatch, *command) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "provider cpu and graph_level all" in line
    monkeypatch.setattr("latency.target.Target.open", lambda target: FakeDevice())
    assert (
        nas(monkeypatch, "measure", "mobilenet_v3_small", "--resolution", "32", "--target", str(target), "--json") == 0
    )
    assert told(capsys)["predicted_ms"] is None


def test_brackets_are_printed_as_they_are(monkeypatch, capsys) -> None:
    reason = "ssh board: Connection refused: does `ssh-keygen -R [board.local]:2222` help? cores [4000]"
    found = Readiness("board", "measured", False, reason)
    monkeypatch.setattr(console.stdout, "_width", 300)
    monkeypatch.setattr("latency.readiness.every_readiness", lambda: [found])
    for command in ("targets", "doctor"):
        assert nas(monkeypatch, command) == 0
        assert reason in capsys.readouterr().out
    note(reason)
    assert reason in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fail(reason)
    assert reason in capsys.readouterr().err


def test_messages_name_the_targets_file(models, monkeypatch, capsys) -> None:
    """A target is known to the command line by its file; its name alone is not."""
    file = models / "board.yaml"
    file.write_text("name: board\ndevice: {kind: host}\n")
    model = dataclasses.replace(fake_model(), target="board")
    model.save(model_path("board", model.provenance, model.settings))
    network = models / "nine.json"
    network.write_text(
        json.dumps(Architecture((Conv(cout=16, stride=2), Conv(cout=16, kernel=9)), resolution=32).to_dict())
    )
    assert nas(monkeypatch, "predict", str(network), "--target", str(file)) == 2
    assert f"nas profile --target {file} --like {network}" in capsys.readouterr().err
    monkeypatch.setattr("latency.target.Target.open", lambda target: SlowerDevice())
    assert nas(monkeypatch, "profile", "--check", "--target", str(file)) == 2
    assert f"nas profile --target {file} --recalibrate" in capsys.readouterr().err

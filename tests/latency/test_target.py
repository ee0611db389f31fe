from pathlib import Path

import pytest

from latency.address import AdbAddress
from latency.errors import TargetError
from latency.host import HostDevice
from latency.profiling import profile_target
from latency.settings import RuntimeSettings
from latency.store import load_model
from latency.target import known_targets, load_target

HOST = "name: mine\ndevice: {kind: host}\n"


@pytest.mark.parametrize("name", known_targets())
def test_every_shipped_target_loads_and_is_named_after_its_file(name):
    assert load_target(name).name == name


def test_the_host_runs_one_bound_thread():
    target = load_target("host")
    assert target.settings == RuntimeSettings(provider="cpu", threads=1, affinity="auto", graph_level="all")
    assert isinstance(target.open(), HostDevice)
    assert target.basis == "measured"


def test_a_file_says_everything(tmp_path: Path):
    path = tmp_path / "board.yaml"
    path.write_text(
        HOST + "runtime: {threads: 2, affinity: [0, 1], graph_level: basic, provider: xnnpack}\n"
        "precision: int8\nbasis: published\nresolution: 96\nbudget_ms: 5\n"
    )
    target = load_target(path)
    assert target.settings == RuntimeSettings(
        provider="xnnpack", threads=2, affinity=(0, 1), graph_level="basic", precision="int8"
    )
    assert (target.name, target.basis, target.resolution, target.budget_ms) == ("mine", "published", 96, 5.0)
    assert load_target(str(path)) == target


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HOST + "runtim: {}\n", "unknown key 'runtim' (did you mean 'runtime'?)"),
        (HOST + "runtime: {thread: 1}\n", "runtime: unknown key 'thread' (did you mean 'threads'?)"),
        ("device: {kind: host}\n", "the key 'name' is missing"),
        ("name: [1]\ndevice: {kind: host}\n", "name must be str, got [1]"),
        (
            "name: a\ndevice: {kind: hots}\n",
            "kind must be one of host, none, ssh, adb, got 'hots' (did you mean 'host'?)",
        ),
        ("name: a\ndevice: host\n", "device: must be a mapping"),
        (HOST + "runtime: {threads: '1'}\n", "runtime: threads must be int, got '1'"),
        (HOST + "runtime: {threads: true}\n", "runtime: threads must be int, got True"),
        (HOST + "runtime: {threads: 0}\n", "runtime: threads must be at least 1, got 0"),
        (HOST + "runtime: {affinity: [a]}\n", "affinity must be auto, none or a list"),
        (HOST + "runtime: {affinity: []}\n", "affinity must name at least one core"),
        (HOST + "runtime: {affinity: most}\n", "affinity must be auto, none or a list"),
        (
            HOST + "runtime: {graph_level: max}\n",
            "graph_level must be one of disabled, basic, extended, all, got 'max'",
        ),
        (HOST + "runtime: {provider: CPU}\n", "provider must be a name in lower case"),
        (HOST + "precision: fp8\n", "precision must be one of fp32, int8, got 'fp8'"),
        (HOST + "basis: guessed\n", "basis must be one of measured, published, got 'guessed'"),
        (HOST + "resolution: 0\n", "resolution must be a finite number above 0, got 0"),
        (HOST + "budget_ms: -1\n", "budget_ms must be a finite number above 0, got -1"),
        (HOST + "budget_ms: .inf\n", "budget_ms must be a finite number above 0, got inf"),
        (HOST + "budget_ms: .nan\n", "budget_ms must be a finite number above 0, got nan"),
        (HOST + "budget_ms: fast\n", "budget_ms must be int or float, got 'fast'"),
        ("name: 2024-13-01\n", "not JSON or YAML: month must be in 1..12"),
        ("name: 2024-12-01\n", "name must be str, got datetime.date(2024, 12, 1)"),
        (
            "name: a\ndevice: {kind: adb, serial: 12345678}\n",
            "serial must be text, one or several, got 12345678: put it in quotes",
        ),
        ("name: a\ndevice: {kind: adb, serial: [a, 007]}\n", "got ['a', 7]: put it in quotes"),
        ("name: my board\n", "name must be of letters, digits, '.', '_' and '-', as it names files; got 'my board'"),
        ("name: ../board\n", "got '../board'"),
        ("name: ''\n", "got ''"),
        ("- a\n", "must be a mapping"),
        ("name: [\n", "not JSON or YAML"),
        ("!!python/object/apply:os.system ['true']\n", "not JSON or YAML"),
    ],
)
def test_a_broken_file_says_which_key(tmp_path: Path, text: str, message: str):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(TargetError) as caught:
        load_target(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(TargetError, match=r"unknown target 'hosst' \(did you mean 'host'\?\); known: .*host"):
        load_target("hosst")


def test_a_missing_file_is_named():
    with pytest.raises(TargetError, match=r"nowhere/x\.yaml: cannot be read"):
        load_target("nowhere/x.yaml")


@pytest.mark.parametrize("runtime", ["graph_level: basic", "graph_level: disabled", "provider: xnnpack"])
def test_what_no_latency_model_can_know_is_said_before_anything_is_measured(tmp_path: Path, runtime: str):
    path = tmp_path / "mine.yaml"
    path.write_text(HOST + f"runtime: {{{runtime}}}\n")
    target = load_target(path)
    device = object()  # has nothing that a device has
    for use in (
        target.require_modelled,
        lambda: profile_target(target, [], device=device),
        lambda: load_model(target, folder=tmp_path),
    ):
        with pytest.raises(
            TargetError, match=r"needs .* provider cpu and graph_level all for now, 'mine' has provider"
        ) as caught:
            use()
        assert runtime.replace(":", "") in str(caught.value)
        assert f"`nas measure ARCH --target {path}` works" in str(caught.value)


@pytest.mark.parametrize("name", known_targets())
def test_shipped_targets_have_or_can_have_a_latency_model(name):
    load_target(name).require_modelled()


@pytest.mark.parametrize(("text", "budget_ms"), [("5e-1", 0.5), ("1e3", 1000.0), ("0.5", 0.5), ("20", 20.0)])
def test_a_budget_is_a_number_however_it_is_written(tmp_path: Path, text: str, budget_ms: float):
    path = tmp_path / "mine.yaml"
    path.write_text(HOST + f"budget_ms: {text}\n")
    assert load_target(path).budget_ms == budget_ms


def test_a_phone_may_be_told_by_its_model(tmp_path: Path):
    path = tmp_path / "phone.yaml"
    path.write_text("name: phone\ndevice: {kind: adb, model: SM_G99, folder: /data/local/tmp/mine}\n")
    assert load_target(path).address == AdbAddress(model="SM_G99", folder="/data/local/tmp/mine")
    path.write_text("name: phone\ndevice: {kind: adb, model: 6}\n")
    with pytest.raises(TargetError, match="model must be str, got 6"):
        load_target(path)

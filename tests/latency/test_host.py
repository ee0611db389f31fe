import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import helper

from latency.device import Device
from latency.errors import DeviceError
from latency.host import HostDevice, computing
from latency.settings import Effort, RuntimeSettings
from tests.latency.device_conformance import QUICK, SETTINGS, DeviceConformance
from tests.latency.models import small_model


@pytest.fixture(scope="module", autouse=True)
def own_locks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", str(tmp_path_factory.mktemp("run")))
        yield


class TestHost(DeviceConformance):
    @pytest.fixture
    def device(self) -> Device:
        return HostDevice("host-test")


def test_unknown_provider_names_those_there_are():
    with pytest.raises(DeviceError, match=r"no provider 'tensorrt'; it has .*cpu"):
        HostDevice("h").optimize(small_model(), settings=RuntimeSettings(provider="tensorrt"))


def test_a_core_that_does_not_exist_is_refused():
    with pytest.raises(DeviceError, match="cannot bind to the cores"):
        HostDevice("h").measure([small_model()], settings=RuntimeSettings(affinity=(4000,)), effort=QUICK)


def test_unstable_measurement_ends_at_its_limit():
    effort = Effort(processes=1, slices=4, tolerance=1e-12, limit_s=0.2)
    [timing] = HostDevice("h").measure([small_model(channels=32, resolution=64)], settings=SETTINGS, effort=effort)
    assert not timing.stable
    assert len(timing.slices) > 4


def test_a_runner_that_dies_gives_its_reason(tmp_path):
    missing = tmp_path / "python"
    missing.write_text("#!/bin/sh\necho 'ImportError: no onnxruntime' >&2\nexit 3\n")
    missing.chmod(0o755)
    with pytest.raises(DeviceError, match=r"exit code 3\): ImportError: no onnxruntime"):
        HostDevice("h", python=str(missing)).describe()
    missing.write_text("#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(DeviceError, match="out of memory"):
        HostDevice("h", python=str(missing)).describe()
    missing.write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(DeviceError, match="expected a line of JSON"):
        HostDevice("h", python=str(missing)).describe()


def test_a_silent_runner_is_given_up(tmp_path):
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    with pytest.raises(DeviceError, match="no sign of life"):
        HostDevice("h", python=str(silent), silence_s=0.2).describe()


def test_interrupting_ends_the_child():
    children = []
    before = set(_children(os.getpid()))

    def interrupt(index, part):
        children.extend(set(_children(os.getpid())) - before)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HostDevice("h").measure([small_model()], settings=SETTINGS, effort=QUICK, on_slice=interrupt)
    assert children
    assert not set(children) & set(_children(os.getpid()))


def test_a_killed_parent_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    code = (
        "from latency.host import HostDevice; from latency.settings import *; from tests.latency.models import small_model\n"
        "HostDevice('orphan').measure([small_model()], settings=RuntimeSettings(),"
        " effort=Effort(tolerance=1e-12, limit_s=600), on_slice=lambda i, s: print('slice', flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "slice\n"
    children = _children(parent.pid)
    assert children
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    for _ in range(200):
        alive = [child for child in children if Path(f"/proc/{child}").exists()]
        if not alive:
            break
        time.sleep(0.05)
    assert not alive
    assert not list(tmp_path.iterdir())


def _children(pid: int) -> list[int]:
    """Processes whose parent is `pid`, by Linux's process table."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def one_node_model(op: str, *, opset: int = 17, domain: str = "", kind: int = onnx.TensorProto.FLOAT) -> bytes:
    values = [helper.make_tensor_value_info(name, kind, [1, 1, 2, 2]) for name in "xwy"]
    node = helper.make_node(op, ["x", "w"], ["y"], domain=domain)
    graph = helper.make_graph([node], "graph", values[:2], values[2:])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("nobody", 1)]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one_node_model("Imaginary"), "lacks the op Imaginary, which the model needs"),
        (one_node_model("Imaginary", domain="nobody"), "lacks the op nobody:Imaginary"),
        (one_node_model("Conv", kind=onnx.TensorProto.DOUBLE), "lacks the op Conv,"),
        (one_node_model("Add", opset=99), r"takes models up to opset \d+, this one has 99"),
    ],
)
def test_what_the_runtime_lacks_is_said_in_one_line(model, message):
    with pytest.raises(DeviceError, match=message) as caught:
        HostDevice().optimize(model, settings=SETTINGS)
    assert "\n" not in str(caught.value)


def test_what_is_computed_inside_of_a_computation_is_a_part_of_it():
    """Another turn of its own could never come while somebody waits to measure: that one waits for the outer to end."""
    with computing("training") as outer:
        with computing("asking a teacher", on_wait=pytest.fail) as inner:
            assert inner is outer
        with computing("judging", on_wait=pytest.fail) as inner:
            assert inner is outer
    with computing("training") as another:
        assert another is not outer

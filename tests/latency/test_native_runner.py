"""The runner in C, compiled for this machine and run on the ONNX Runtime that is installed here."""

import shutil
import subprocess
from pathlib import Path

import onnxruntime
import pytest

from latency.device import Device
from latency.errors import DeviceError
from latency.host import HostDevice
from latency.native_runner import job_files, source_folder
from latency.settings import Effort, RuntimeSettings
from tests.latency.device_conformance import QUICK, SETTINGS, DeviceConformance
from tests.latency.models import small_model, unknown_op_model

LIBRARY = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"), None)
pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)"),
    pytest.mark.skipif(LIBRARY is None, reason="this onnxruntime has no shared library of its own"),
]


class NativeHost(HostDevice):
    """This machine, with the runner in C."""

    def __init__(self, name: str, *, binary: Path, **options) -> None:
        super().__init__(name, **options)
        self.binary = binary

    def _job_files(self, job):
        return job_files(job)

    def _command(self, folder):
        return [str(self.binary), folder, str(LIBRARY)]


@pytest.fixture(scope="module")
def binary(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", str(folder))
        source = source_folder() / "runner.c"
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["cc", *flags, "-o", folder / "runner", source, "-ldl", "-lm"], check=True)
        yield folder / "runner"


class TestNativeHost(DeviceConformance):
    @pytest.fixture
    def device(self, binary) -> Device:
        return NativeHost("native-test", binary=binary)


def test_it_describes_the_machine_as_the_runner_in_python_does(binary):
    native, python = NativeHost("n", binary=binary).describe(), HostDevice("h").describe()
    for field in ("machine", "cores", "memory_bytes", "runtime", "nchwc_block", "governor", "max_frequency_khz"):
        assert getattr(native, field) == getattr(python, field)
    assert set(native.providers) <= set(python.providers)
    assert native.flags == python.flags


def test_it_measures_until_the_limit_where_nothing_settles(binary):
    effort = Effort(processes=1, slices=4, tolerance=1e-12, limit_s=0.2)
    [timing] = NativeHost("n", binary=binary).measure([small_model()], settings=SETTINGS, effort=effort)
    assert not timing.stable
    assert len(timing.slices) > 4


def test_it_binds_to_the_cores_it_is_told(binary):
    with pytest.raises(DeviceError, match="cannot bind to the cores"):
        settings = RuntimeSettings(affinity=(4000,))
        NativeHost("n", binary=binary).measure([small_model()], settings=settings, effort=QUICK)


def test_a_provider_that_the_runtime_lacks_is_named(binary):
    with pytest.raises(DeviceError, match=r"no provider 'nnapi'; it has .*cpu"):
        NativeHost("n", binary=binary).optimize(small_model(), settings=RuntimeSettings(provider="nnapi"))


def test_an_op_that_the_runtime_lacks_is_named(binary):
    with pytest.raises(
        DeviceError, match=r"the runtime there lacks the op .*Imaginary, which the model needs"
    ) as caught:
        NativeHost("n", binary=binary).optimize(unknown_op_model(), settings=SETTINGS)
    assert "\n" not in str(caught.value)


def test_a_library_that_is_none_is_named(binary, tmp_path):
    (tmp_path / "job.txt").write_text("mode describe\n")
    done = subprocess.run([binary, tmp_path, tmp_path / "none.so"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be loaded" in done.stdout


def test_a_runner_that_nobody_listens_to_cleans_up(binary, tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "0.onnx").write_bytes(small_model())
    job = {"mode": "measure", "models": ["0.onnx"], "effort": {"slices": 4, "tolerance": 1e-12, "limit_s": 600}}
    for name, content in job_files(job).items():
        (folder / name).write_bytes(content)
    process = subprocess.Popen([binary, folder, LIBRARY], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert b"started" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert not folder.exists()


@pytest.mark.parametrize("line", ["colour red", "input float32 1,2"])
def test_a_job_it_cannot_read_is_refused(binary, tmp_path, line):
    (tmp_path / "job.txt").write_text(line + "\n")
    done = subprocess.run([binary, tmp_path, LIBRARY], capture_output=True, text=True)
    assert done.returncode == 1
    assert '"error"' in done.stdout

"""The runner in Python on an emulated arm64 Linux over a real sshd: shows that it works there; its times mean nothing."""

from dataclasses import replace

import onnxruntime
import pytest

from latency.device import Device
from latency.ssh import ssh_device
from tests.latency.arm64 import arm64_python, missing_for_arm64
from tests.latency.device_conformance import DeviceConformance
from tests.latency.sshd import open_sshd

MISSING = missing_for_arm64("apt-get", "dpkg")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    python = arm64_python(tmp_path_factory.mktemp("arm64"))
    server = open_sshd(tmp_path_factory.mktemp("sshd"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", str(tmp_path_factory.mktemp("run")))
        yield replace(server.address, python=str(python))
    server.cut()


class TestArm64Board(DeviceConformance):
    limit_s = 10.0

    @pytest.fixture
    def device(self, board) -> Device:
        return ssh_device("board", board)

    def test_it_says_that_it_is_emulated(self, device):
        found = device.describe()
        assert found.machine == "aarch64"
        assert found.emulated
        assert found.runtime == onnxruntime.__version__

"""Phones over the real `adb` client, which talks to a device end of ours; its processor is this machine's own."""

import json
import shutil
import subprocess
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from latency import adb
from latency.adb import AdbShell
from latency.address import AdbAddress
from latency.bundle import android_bundle, linux_bundle
from latency.cool import Cool
from latency.device import Device
from latency.errors import DeviceError, DeviceUnavailable, DeviceUnreachable, ModelError
from latency.installing import install
from latency.phone import Phone
from latency.pool import phones
from latency.profiling import JOB, profile_target, read_measurements
from latency.samples import varied_architectures
from latency.settings import Effort
from latency.target import Target, load_target
from searchspace.architecture import lower
from tests.latency.arm64 import HIDE_SYS, missing_for_arm64
from tests.latency.device_conformance import QUICK, SETTINGS, DeviceConformance
from tests.latency.models import small_model, unknown_op_model
from tests.latency.phones import FOLDER, LIBRARY, NEEDED, TestPhone, bundle_for
from tests.latency.turns import assert_they_take_turns
from tests.nas.cli.test_frame import nas, refused

pytestmark = NEEDED


class TestAdb(DeviceConformance):
    @pytest.fixture
    def device(self, phone) -> Device:
        return phone.device()


def test_the_phone_is_described(phone):
    found = phone.device().describe()
    assert found.cpu.startswith("Test 6: ")
    assert found.system.startswith("Android 14, ")
    assert found.runtime == onnxruntime.__version__


def test_what_is_installed_is_recorded_and_nothing_else_is_left(phone):
    runtime = phone.device().runtime()
    assert (runtime.kind, runtime.version, runtime.abi) == ("android", onnxruntime.__version__, "x86_64")
    assert len(runtime.digest) == 64
    phone.device().describe()
    assert [path.name for path in (phone.root / "tmp/pocketnas").iterdir()] == ["runtime"]


def test_a_phone_without_a_runtime_says_how_to_get_one(bare):
    with pytest.raises(DeviceError, match=r"no runtime is installed.*nas targets install test --build"):
        bare.device().describe()


def test_a_damaged_runtime_is_not_used(bare, runner):
    install(bare.shell, lambda abi: bundle_for(abi, runner), name="test")
    folder = bare.root / "tmp/pocketnas/runtime"
    with (folder / "libonnxruntime.so").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DeviceError, match="is damaged"):
        bare.device().describe()
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("abi", ["arm64-v8a", "mips"])
def test_a_runtime_for_another_processor_is_refused_and_leaves_nothing(bare, runner, abi):
    bare.tell(abi=abi)
    with pytest.raises(
        DeviceError, match=r"must be made for the phone's arm64-v8a, it is x86_64|must name an instruction"
    ):
        install(bare.shell, lambda found: bundle_for(found, runner), name="test")
    assert not (bare.root / "tmp/pocketnas/runtime").exists()
    bare.tell()


def test_a_runtime_that_does_not_run_leaves_the_one_before(phone, runner):
    before = phone.device().runtime()

    def broken(abi):
        found = bundle_for(abi, runner)
        return replace(found, files={**found.files, "libonnxruntime.so": runner.read_bytes()})

    with pytest.raises(DeviceError, match=r"cannot be loaded|is not ONNX Runtime"):
        install(phone.shell, broken, name="test")
    assert phone.device().runtime() == before
    assert not (phone.root / "tmp/pocketnas/incoming").exists()


def test_a_library_without_a_runner_says_how_to_compile_one(tmp_path):
    with pytest.raises(DeviceError, match=r"clang -O2 -o pocketnas-runner .*runner\.c"):
        android_bundle(LIBRARY, None, abi="arm64-v8a")


def test_a_wrong_serial_is_named_with_those_there_are(phone):
    with pytest.raises(DeviceUnreachable, match=f"adb nobody: no phone with this serial.*{phone.serial}"):
        Phone("test", AdbShell("nobody", folder=FOLDER)).describe()


def test_several_phones_of_a_model_are_a_pool_and_none_is_said(phone, bare, monkeypatch):
    assert set(adb.serials((), name="t")) == {phone.serial, bare.serial}
    assert adb.serials(("A",), name="t") == ("A",)
    monkeypatch.setattr(adb, "attached", lambda: (adb.Attached("A", "device", "x"), adb.Attached("B", "device", "y")))
    with pytest.raises(DeviceError, match=r"several models.*A \(x\), B \(y\)"):
        adb.serials((), name="t")
    monkeypatch.setattr(adb, "attached", lambda: (adb.Attached("A", "unauthorized", ""),))
    with pytest.raises(DeviceUnavailable, match="a phone must be attached and ready, A is unauthorized"):
        adb.serials((), name="t")


def test_a_target_may_say_of_which_model_the_attached_phone_is(monkeypatch):
    several = (adb.Attached("A", "device", "SM_G991B"), adb.Attached("B", "device", "Pixel_6"))
    monkeypatch.setattr(adb, "attached", lambda: several)
    assert adb.serials((), name="t", model="Pixel") == ("B",)
    monkeypatch.setattr(adb, "attached", lambda: several[:1])
    with pytest.raises(DeviceUnavailable, match="a Pixel phone must be attached and ready, A is SM_G991B"):
        adb.serials((), name="t", model="Pixel")


def test_a_phone_on_the_cable_and_in_the_network_is_one_phone(phone, bare, monkeypatch):
    other = f"localhost:{phone.port}"  # another way to the same one
    subprocess.run(["adb", "connect", other], check=True, capture_output=True, timeout=30)
    try:
        assert set(adb.distinct((phone.serial, bare.serial, other))) == {
            phone.serial,
            bare.serial,
            other,
        }  # tell nothing
        phone.tell(serialno="1A2B")
        bare.tell(serialno="3C4D")
        assert adb.distinct((phone.serial, bare.serial, other)) == (phone.serial, bare.serial)
        assert adb.distinct(("1A2B", phone.serial)) == ("1A2B", phone.serial)  # what gives no answer is its own
        with monkeypatch.context() as patch:
            patch.setattr(adb, "_over_network", lambda serial: serial != other)  # as if that one were the cable
            assert adb.distinct((phone.serial, bare.serial, other)) == (bare.serial, other)
        assert {member.shell.serial for member in phones("t", AdbAddress()).members} == {phone.serial, bare.serial}
    finally:
        subprocess.run(["adb", "disconnect", other], check=False, capture_output=True, timeout=30)


def test_a_phone_is_looked_for_when_it_is_used(phone, monkeypatch):
    monkeypatch.setattr(adb, "attached", lambda: ())
    device = phones("t", AdbAddress())
    with pytest.raises(DeviceUnavailable, match="a phone must be attached and ready, there is none"):
        device.measure([small_model()], settings=SETTINGS, effort=QUICK)
    monkeypatch.setattr(adb, "attached", lambda: (adb.Attached(phone.serial, "device", "Test"),))
    assert device.describe() == phone.device().describe()


def test_a_pixel_that_gives_no_answer_hides_no_other(phone, monkeypatch):
    attached = (adb.Attached("gone", "device", "Pixel_6"), adb.Attached(phone.serial, "device", "Pixel_6"))
    monkeypatch.setattr(adb, "attached", lambda: attached)
    assert adb.installed_pixels(folder=FOLDER) == (phone.serial,)
    monkeypatch.setattr(adb, "attached", lambda: ())
    assert adb.installed_pixels(folder=FOLDER) == ()


def test_a_phone_that_has_not_allowed_this_computer_may_do_so_later():
    lines = ("error: device unauthorized.", "This adb server's $ADB_VENDOR_KEYS is not set", "Try 'adb kill-server'")
    found = AdbShell("A", folder=FOLDER).trouble(1, "\n".join(lines))
    assert isinstance(found, DeviceUnavailable)
    assert "accept the question on its screen" in str(found)


def test_adb_that_is_not_there_is_asked_for(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError, match="apt install adb"):
        adb.attached()


def test_an_op_that_the_runtime_lacks_is_named(phone):
    with pytest.raises(
        DeviceError, match=r"the runtime there lacks the op .*Imaginary, which the model needs"
    ) as caught:
        phone.device().optimize(unknown_op_model(), settings=SETTINGS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", ["device", "server"])
def test_a_connection_that_breaks_is_made_again_and_no_slice_is_lost(phone, cut):
    taken = []
    back = threading.Timer(0.5, phone.start)

    def interfere(index, part):
        taken.append(part)
        if len(taken) == 3:
            if cut == "server":
                subprocess.run(["adb", "kill-server"], check=True, capture_output=True, timeout=30)
            else:
                phone.kill()
                back.start()

    effort = Effort(processes=2, slices=4, tolerance=1.0, limit_s=2.0)
    device = phone.device()
    device.describe()
    device._cool[SETTINGS] = Cool(device._reference_ms(SETTINGS), 0)  # so that the first slices are the model's
    try:
        [timing] = device.measure([small_model()], settings=SETTINGS, effort=effort, on_slice=interfere)
    finally:
        if cut == "device":
            back.join()
    assert list(timing.slices) == taken
    assert len({part.process for part in taken}) >= 2  # slices from before and after the cut


def test_computers_take_turns_on_one_phone(phone, tmp_path):
    """Two processes that share no lock of their own, as on two computers: their slices do not mix, none loses its files."""
    assert_they_take_turns(_measure, phone.serial, tmp_path)
    assert [path.name for path in (phone.root / "tmp/pocketnas").iterdir()] == ["runtime"]


def _measure(serial: str, log: str, locks: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", locks)

        def note(index, part):
            with Path(log).open("a") as file:
                file.write(f"{locks}\n")

        effort = Effort(processes=2, slices=8, tolerance=1.0, limit_s=0.3)
        phone = Phone("test", AdbShell(serial, folder=FOLDER), hot=float("inf"))
        phone.measure([small_model()], settings=SETTINGS, effort=effort, on_slice=note)


def test_profiling_stops_when_the_phone_goes_away_and_goes_on_later(phone, tmp_path):
    target = Target(name="phone", device="adb", settings=SETTINGS, address=AdbAddress(serial=(phone.serial,)))

    def profile(device, on_progress=None):
        return profile_target(
            target,
            (one for one in varied_architectures(3) if lower(one).macs < 5e6 and lower(one).params < 2e5),
            networks=16,
            device=device,
            effort=replace(QUICK, limit_s=0.1),
            folder=tmp_path,
            on_progress=on_progress,
        )

    try:
        with pytest.raises(DeviceUnreachable, match="given up after 2 attempts"):
            profile(phone.device(waits_s=(0.01,)), on_progress=lambda state: state.networks and phone.kill())
    finally:
        phone.start()
    [log] = tmp_path.glob("phone-*.jsonl")
    kept = [one.architecture.fingerprint for one in read_measurements(log)]
    assert len(kept) == JOB
    with suppress(ModelError):  # a machine with much else to do has too few stable measurements to fit
        profile(phone.device())
    measured = [one.architecture.fingerprint for one in read_measurements(log)]
    assert measured[:JOB] == kept
    assert len(set(measured)) == 16


def test_a_phone_that_stays_away_is_given_up_and_answers_when_it_is_back(phone):
    device = phone.device(waits_s=(0.1,))
    device.describe()
    phone.kill()
    with pytest.raises(DeviceUnreachable, match=r"given up after 2 attempts|offline|not found|connection"):
        device.optimize(small_model(), settings=SETTINGS)
    phone.start()
    assert device.optimize(small_model(), settings=SETTINGS)


def test_pixel_means_the_attached_phone_once_a_runtime_is_on_it(phone, monkeypatch):
    assert load_target("pixel").device == "none"
    attached = (adb.Attached(phone.serial, "device", "Pixel_6"), adb.Attached("other", "device", "Test"))
    monkeypatch.setattr(adb, "attached", lambda: attached)
    target = load_target("pixel")
    assert (target.name, target.device, target.basis) == ("pixel", "adb", "measured")
    assert target.open().describe() == phone.device().describe()


def test_installing_from_the_command_line(bare, runner, tmp_path):
    file = tmp_path / "phone.yaml"
    file.write_text(f"name: test\ndevice: {{kind: adb, serial: '{bare.serial}'}}\n")
    options = ("--runtime", str(LIBRARY), "--runner", str(runner), "--json")
    told = json.loads(nas("targets", "install", str(file), *options, home=tmp_path).stdout)
    [row] = told["phones"]
    assert (row["serial"], row["kind"], row["runtime"]) == (bare.serial, "android", onnxruntime.__version__)
    assert "--runner" in refused("targets", "install", str(file), "--runtime", str(LIBRARY), home=tmp_path)
    assert "either --build or --runtime" in refused("targets", "install", str(file), home=tmp_path)
    assert f"{bare.serial} (Test)" in refused("targets", "install", "pixel", "--build", home=tmp_path)  # no Pixel
    assert "phones only" in refused("targets", "install", "host", "--build", home=tmp_path)


MISSING = missing_for_arm64("aarch64-linux-gnu-gcc")


@pytest.fixture(scope="module")
def emulated(server, tmp_path_factory):
    phone = TestPhone(tmp_path_factory.mktemp("emulated"), wrapper=HIDE_SYS, abi="arm64-v8a")
    install(phone.shell, lambda abi: linux_bundle(onnxruntime.__version__), name="test")
    yield phone
    phone.kill()


@pytest.mark.slow
@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
class TestEmulated(DeviceConformance):
    """The bundle for arm64 on an emulated processor: shows that it works there; its times mean nothing."""

    limit_s = 10.0

    @pytest.fixture
    def device(self, emulated) -> Device:
        return emulated.device()

    def test_it_says_that_it_is_emulated(self, device):
        found = device.describe()
        assert found.machine == "aarch64"
        assert found.emulated
        assert found.runtime == onnxruntime.__version__

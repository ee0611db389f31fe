"""Phones over the real `adb` client, which talks to a device end of ours; its processor is this machine's own."""

import contextlib
import json
import multiprocessing
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import onnxruntime
import pytest

from latency import adb
from latency.adb import AdbShell
from latency.address import AdbAddress
from latency.bundle import Bundle, android_bundle, linux_bundle
from latency.cool import Cool, read_cool
from latency.device import Device
from latency.errors import DeviceError, DeviceUnavailable, DeviceUnfit, DeviceUnreachable, ModelError
from latency.installing import install
from latency.lock import DeviceLock
from latency.native_runner import source_folder
from latency.phone import Phone, _Capped
from latency.phone_state import STATE, PhoneState
from latency.pool import PhonePool, phones
from latency.profiling import JOB, profile_target, read_measurements
from latency.samples import varied_architectures
from latency.settings import Effort
from latency.store import models_folder
from latency.target import Target, load_target
from searchspace.architecture import lower
from tests.latency.arm64 import HIDE_SYS, missing_for_arm64
from tests.latency.device_conformance import QUICK, SETTINGS, DeviceConformance
from tests.latency.models import small_model, unknown_op_model
from tests.nas.cli.test_frame import nas, refused

FOLDER = "/data/local/tmp/pocketnas"
LIBRARY = next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so*"), None)
pytestmark = [
    pytest.mark.skipif(shutil.which("adb") is None, reason="there is no adb (apt install adb)"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)"),
    pytest.mark.skipif(LIBRARY is None, reason="this onnxruntime has no shared library of its own"),
]
BATTERY = "AC powered: false\nUSB powered: {usb}\nlevel: {level}\ntemperature: {tenths}\n"


class TestPhone:
    """A device end in a process of its own, which can be killed and started again on the same port."""

    __test__ = False

    def __init__(self, root: Path, *, wrapper: tuple[str, ...] = (), abi: str = "x86_64") -> None:
        self.root, self.wrapper = root, wrapper
        for folder in ("tmp", "bin"):
            (root / folder).mkdir(parents=True)
        self.tell(abi=abi)
        self.port = 0
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def tell(self, *, abi="x86_64", level=80, usb="true", tenths=290, thermal=0, model="Test 6", serialno="") -> None:
        """What `getprop` and `dumpsys` say from now on."""
        properties = {
            "ro.product.cpu.abilist": abi,
            "ro.product.model": model,
            "ro.build.version.release": "14",
            "ro.serialno": serialno,
        }
        cases = " ".join(f"{key}) echo '{value}';;" for key, value in properties.items())
        battery = BATTERY.format(usb=usb, level=level, tenths=tenths)
        scripts = {
            "getprop": f"case $1 in {cases} esac",
            "dumpsys": f"case $1 in battery) printf '{battery}';; thermalservice) echo 'Thermal Status: {thermal}';; "
            "power) echo mWakefulness=Asleep;; esac",
        }
        for name, script in scripts.items():
            path = self.root / "bin" / f"{name}.new"
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            path.rename(self.root / "bin" / name)

    def start(self) -> None:
        command = [
            *self.wrapper,
            sys.executable,
            str(Path(__file__).with_name("phone.py")),
            str(self.root),
            str(self.port),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.shell.reconnect()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def shell(self) -> AdbShell:
        return AdbShell(self.serial, folder=FOLDER)

    def device(self, **options) -> Phone:
        quick = {"waits_s": (0.3, 0.5, 1.0, 2.0), "cooling_s": (0.0, 0.0), "hot": float("inf")}
        return Phone("test", self.shell, **{**quick, **options})


@contextlib.contextmanager
def adb_server(folder: Path) -> Iterator[None]:
    """An adb server of our own, on a free port, with keys in a folder of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("POCKETNAS_LOCKS", str(folder / "locks"))
        subprocess.run(["adb", "start-server"], check=True, capture_output=True, timeout=30)
        try:
            yield
        finally:
            subprocess.run(["adb", "kill-server"], check=False, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with adb_server(tmp_path_factory.mktemp("adb")):
        yield


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("native") / "runner"
    subprocess.run(["cc", "-O2", "-o", path, source_folder() / "runner.c", "-ldl", "-lm"], check=True)
    return path


def bundle_for(abi: str, runner: Path) -> Bundle:
    assert LIBRARY is not None
    return android_bundle(LIBRARY, runner, abi=abi)


@pytest.fixture(scope="module")
def phone(server, runner, tmp_path_factory):
    phone = TestPhone(tmp_path_factory.mktemp("phone"))
    install(phone.shell, lambda abi: bundle_for(abi, runner), name="test")
    yield phone
    phone.kill()


@pytest.fixture(scope="module")
def bare(server, tmp_path_factory):
    """A phone without a runtime."""
    phone = TestPhone(tmp_path_factory.mktemp("bare"))
    yield phone
    phone.kill()


@pytest.fixture(autouse=True)
def as_it_was(request):
    yield
    for name in {"phone", "bare"} & set(request.fixturenames):
        phone = request.getfixturevalue(name)
        phone.tell()
        phone.shell.reconnect()  # a new adb server knows none


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
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_measure, args=(phone.serial, str(log), str(tmp_path / f"locks{one}")))
        for one in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    order = log.read_text().split()
    assert len(set(order)) == 2
    assert sum(before != after for before, after in pairwise(order)) == 1
    assert [path.name for path in (phone.root / "tmp/pocketnas").iterdir()] == ["runtime"]


def _measure(serial: str, log: str, locks: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", locks)

        def note(index, part):
            with Path(log).open("a") as file:
                file.write(f"{locks}\n")

        effort = Effort(processes=2, slices=8, tolerance=1.0, limit_s=2.0)
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
            effort=QUICK,
            folder=tmp_path,
            on_progress=on_progress,
        )

    try:
        with pytest.raises(DeviceUnreachable, match="given up after 2 attempts"):
            profile(phone.device(waits_s=(0.01,)), on_progress=lambda state: phone.kill())
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


def test_state_is_read(phone):
    phone.tell(level=41, usb="false", tenths=352, thermal=1)
    state = phone.device().state()
    assert state == PhoneState(0.41, False, 35.2, 1, False, "Test 6", "14")
    assert str(state) == "battery 41%, 35.2 °C, thermal status 1, screen off"
    assert PhoneState.parse("") == PhoneState(None, False, None, None, None, None, None)


def test_an_empty_battery_is_refused_unless_it_charges(phone):
    phone.tell(level=9, usb="false")
    with pytest.raises(DeviceError, match="battery must hold at least 15%, it holds 9%"):
        phone.device().measure([small_model()], settings=SETTINGS, effort=QUICK)
    phone.tell(level=9, usb="true")
    assert phone.device().measure([small_model()], settings=SETTINGS, effort=QUICK)


@pytest.mark.parametrize("sign", [{"thermal": 3}, {"tenths": 480}])
def test_a_hot_phone_is_waited_for(phone, sign, monkeypatch):
    phone.tell(**sign)
    with pytest.raises(DeviceUnfit, match="too hot to measure"):
        phone.device().measure([small_model()], settings=SETTINGS, effort=QUICK)
    monkeypatch.setattr("time.sleep", lambda seconds: phone.tell())  # meanwhile it cools
    assert phone.device().measure([small_model()], settings=SETTINGS, effort=QUICK)


@pytest.fixture
def new(phone, monkeypatch, tmp_path):
    """The phone to a computer that has never measured on it."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return phone


@pytest.mark.parametrize("found", [(1.0, 1.3, 1.02), (1.3, 1.0, 1.02)])
def test_what_was_taken_while_it_was_slow_is_measured_again(new, monkeypatch, found):
    references = iter(found)
    device = new.device(hot=1.05)
    monkeypatch.setattr(device, "_reference_ms", lambda settings: next(references))
    every, kept = [], []

    def keep(index, part):
        every.append(part)
        kept.append(part)

    def measure():
        return device.measure([small_model()], settings=SETTINGS, effort=QUICK, on_slice=keep, on_restart=kept.clear)

    [timing] = measure()
    assert len(timing.slices) < len(every)
    assert list(timing.slices) == kept
    kept.clear()
    with pytest.raises(DeviceUnfit, match="slowed down"):
        monkeypatch.setattr(device, "_reference_ms", lambda settings: 2.0)
        measure()
    assert kept == []  # what was slow is not left to anyone


def test_a_phone_that_is_slow_from_the_start_is_held_to_what_it_did_before(new, monkeypatch):
    def device(*references: float) -> Phone:
        found, left = new.device(hot=1.05), iter(references)
        monkeypatch.setattr(found, "_reference_ms", lambda settings: next(left))
        return found

    def measure(on: Phone, taken: list) -> None:
        on.measure([small_model()], settings=SETTINGS, effort=QUICK, on_slice=lambda *part: taken.append(part))

    taken: list = []
    measure(device(1.0, 1.01), taken)
    slow: list = []
    with pytest.raises(DeviceUnfit, match=r"slowed down.*for good, delete .*cool") as caught:
        measure(device(1.3, 1.3, 1.3), slow)
    assert slow == []  # nothing was measured in vain
    cooled: list = []
    measure(device(1.3, 1.02, 1.0), cooled)  # it cools after the first look
    assert cooled
    measure(device(0.99, 0.99), taken)
    measure(device(1.04, 1.04), taken)  # a little luck before asks no more of it
    Path(str(caught.value).rpartition("delete ")[2]).unlink()
    measure(device(1.3, 1.3), taken)


def test_a_core_that_is_held_down_from_the_start_is_noticed_but_not_for_ever(new, monkeypatch):
    def started(most: int) -> bytes:
        return json.dumps({"event": "started", "cores": [0], "max_khz": most}).encode()

    def at(khz: int) -> bytes:
        return json.dumps({"event": "slice", "khz": 1, "cap_khz": khz}).encode()

    device = new.device()
    caps = []

    def reference_ms(settings) -> float:
        device._held_down(started(2800000))
        caps.append([device._held_down(at(khz)) for khz in (1400000, 1400000)])
        if caps[-1][0]:
            raise _Capped
        return 1.0

    monkeypatch.setattr(device, "_reference_ms", reference_ms)
    device.describe()
    monkeypatch.setattr(
        "latency.device.RunnerDevice.measure", lambda *_, **__: []
    )  # this machine may have frequencies, too
    device.measure([small_model()], settings=SETTINGS, effort=QUICK)
    assert caps[:2] == [[True, True]] * 2  # while it may cool
    assert caps[2:] == [[False, False]] * 2  # it has waited as long as it does
    [kept] = (models_folder() / "cool").iterdir()
    assert read_cool(kept) == Cool(1.0, 1400000)
    again = new.device()
    with pytest.raises(DeviceUnfit, match="slowed down"):
        monkeypatch.setattr(again, "_reference_ms", lambda settings: again._held_down(at(1000000)) and _raise())
        again.measure([small_model()], settings=SETTINGS, effort=QUICK)


def _raise() -> float:
    raise _Capped


def test_slices_on_a_core_that_is_held_down_are_dropped(phone, monkeypatch):
    device = phone.device()
    caps = [2800000, 1400000, 2800000, 2700000] + [1400000] * 39
    lines = [json.dumps({"event": "slice", "khz": 1, "cap_khz": cap}).encode() for cap in caps]
    assert [cap for cap, line in zip(caps, lines, strict=True) if not device._held_down(line)] == [
        2800000,
        2800000,
        2700000,
    ]
    with pytest.raises(_Capped):
        device._held_down(lines[-1])


def test_a_pool_goes_on_with_another_phone(phone, bare, runner):
    bare.shell.reconnect()
    install(bare.shell, lambda abi: bundle_for(abi, runner), name="test")
    pool = PhonePool("pool", [bare.device(waits_s=()), phone.device(waits_s=())])
    assert pool.describe() == phone.device().describe()
    with pool.reserve("outer"):
        assert pool.optimize(small_model(), settings=SETTINGS)
        assert [member.holder() is None for member in pool.members] == [False, True]
        bare.kill()
        assert pool.measure([small_model()], settings=SETTINGS, effort=QUICK)
        assert [member.holder() is None for member in pool.members] == [True, False]
    bare.start()


def test_a_pool_that_goes_on_with_another_phone_says_that_it_begins_anew(phone, bare, runner):
    bare.shell.reconnect()
    install(bare.shell, lambda abi: bundle_for(abi, runner), name="test")
    pool = PhonePool("pool", [bare.device(waits_s=()), phone.device(waits_s=())])
    pool.describe()
    taken = []

    def cut(index, part):
        taken.append(part)
        if bare.process.poll() is None:
            bare.kill()

    effort = Effort(processes=1, slices=100, tolerance=1.0, limit_s=20.0)
    try:
        [timing] = pool.measure([small_model()], settings=SETTINGS, effort=effort, on_slice=cut, on_restart=taken.clear)
    finally:
        bare.start()
    assert list(timing.slices) == taken
    assert {part.process for part in taken} == {0}


def test_a_pool_measures_on_a_phone_that_is_fit(phone, bare, runner):
    bare.shell.reconnect()
    install(bare.shell, lambda abi: bundle_for(abi, runner), name="test")
    bare.tell(level=5, usb="false")
    pool = PhonePool("pool", [bare.device(), phone.device()])
    assert pool.measure([small_model()], settings=SETTINGS, effort=QUICK)
    phone.tell(level=5, usb="false")
    with pytest.raises(DeviceUnfit, match="battery must hold"):
        pool.measure([small_model()], settings=SETTINGS, effort=QUICK)


def test_a_pool_does_not_wait_for_a_phone_in_use_but_holds_it_to_the_others_later(phone, bare, runner):
    bare.shell.reconnect()
    install(bare.shell, lambda abi: bundle_for(abi, runner), name="test")
    bare.tell(model="Other 5")
    pool = PhonePool("pool", [phone.device(), bare.device()])
    with DeviceLock(bare.shell.name).held("measuring"):
        assert pool.describe() == phone.device().describe()
    with (
        DeviceLock(phone.shell.name).held("measuring"),
        pytest.raises(DeviceError, match=f"must be of one kind, but cpu is 'Test 6.*on {bare.serial}"),
    ):
        pool.optimize(small_model(), settings=SETTINGS)


def test_phones_of_a_pool_must_be_alike(phone, bare, runner):
    bare.shell.reconnect()
    install(bare.shell, lambda abi: bundle_for(abi, runner), name="test")
    bare.tell(model="Other 5")
    with pytest.raises(DeviceError, match="phones of a pool must be of one kind, but cpu is 'Test 6"):
        PhonePool("pool", [phone.device(), bare.device()]).describe()
    bare.tell()


def test_the_state_script_is_one_that_a_plain_shell_runs():
    assert subprocess.run(["sh", "-n", "-c", STATE]).returncode == 0


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

    limit_s = 60.0

    @pytest.fixture
    def device(self, emulated) -> Device:
        return emulated.device()

    def test_it_says_that_it_is_emulated(self, device):
        found = device.describe()
        assert found.machine == "aarch64"
        assert found.emulated
        assert found.runtime == onnxruntime.__version__

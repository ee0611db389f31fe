"""Heat, battery and frequency of a phone: what was measured while it was slowed down does not count."""

import json
import subprocess
from pathlib import Path

import pytest

from latency.cool import Cool, read_cool
from latency.errors import DeviceError, DeviceUnfit
from latency.phone import Phone, _Capped
from latency.phone_state import STATE, PhoneState
from latency.store import models_folder
from tests.latency.device_conformance import QUICK, SETTINGS
from tests.latency.models import small_model
from tests.latency.phones import NEEDED

pytestmark = NEEDED


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


def test_the_state_script_is_one_that_a_plain_shell_runs():
    assert subprocess.run(["sh", "-n", "-c", STATE]).returncode == 0

"""Which phone of a pool is taken, with pretended ones: no adb is needed."""

import contextlib
from types import SimpleNamespace

import pytest

from latency import pool
from latency.errors import DeviceUnreachable
from latency.fake import FakeDevice
from latency.pool import PhonePool
from tests.latency.device_conformance import SETTINGS
from tests.latency.models import small_model


class PretendedPhone(FakeDevice):
    """A phone that is there or away, and counts its uses."""

    def __init__(self, serial: str) -> None:
        super().__init__(serial)
        self.shell = SimpleNamespace(serial=serial, name=serial)
        self.away = False
        self.tried = 0

    def holder(self) -> str | None:
        return None

    def reserve(self, purpose, *, on_wait=None):
        return contextlib.nullcontext()

    def memory(self, model, *, settings):
        self.tried += 1
        if self.away:
            raise DeviceUnreachable(f"{self.name} is away")
        return 1


@pytest.fixture
def phones(monkeypatch) -> list[PretendedPhone]:
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    return [PretendedPhone("a"), PretendedPhone("b")]


def test_a_lost_phone_is_tried_again_after_some_minutes(phones):
    one, other = phones
    several = PhonePool("pool", phones)
    one.away = True
    while several.memory(small_model(), settings=SETTINGS) and one.tried < 2 and other.tried < 100:
        pass
    assert other.tried > 5, "not at once"
    assert one.tried == 2
    one.away = False
    while one.tried < 3 and other.tried < 200:
        several.memory(small_model(), settings=SETTINGS)
    assert one.tried == 3


def test_each_is_tried_once_before_all_are_given_up(phones):
    several = PhonePool("pool", phones)
    for phone in phones:
        phone.away = True
    with pytest.raises(DeviceUnreachable):
        several.memory(small_model(), settings=SETTINGS)
    assert [phone.tried for phone in phones] == [1, 1]
    phones[0].away = False
    assert several.memory(small_model(), settings=SETTINGS) == 1


def test_each_is_tried_once_also_where_that_takes_minutes(phones, monkeypatch):
    monkeypatch.setattr(pool, "AGAIN_S", 0.0)
    test_each_is_tried_once_before_all_are_given_up(phones)

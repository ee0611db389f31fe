"""Several phones as one device."""

import pytest

from latency.errors import DeviceError, DeviceUnfit
from latency.installing import install
from latency.lock import DeviceLock
from latency.pool import PhonePool
from latency.settings import Effort
from tests.latency.device_conformance import QUICK, SETTINGS
from tests.latency.models import small_model
from tests.latency.phones import NEEDED, bundle_for

pytestmark = NEEDED


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

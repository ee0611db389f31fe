"""Several phones of one kind as one device: each use takes one that is free, and another one where that fails."""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from latency import adb
from latency.adb import AdbShell
from latency.address import AdbAddress
from latency.device import Device, OnRestart, OnSlice, OpTime
from latency.errors import DeviceBusy, DeviceError, DeviceUnavailable
from latency.lock import unless_taken
from latency.phone import Phone
from latency.provenance import Provenance
from latency.settings import Effort, RuntimeSettings
from latency.timing import Timing

Result = TypeVar("Result")

AGAIN_S = 300.0  # after which a phone that could not be used is tried again


def phones(name: str, address: AdbAddress, *, option: str | None = None) -> Device:
    """The phone that a target called `name` means, or the pool of them; which are attached is not looked at yet.

    Args:
        name: of the target.
        address: which phones.
        option: what the command line calls the target, if not its name.
    """

    def phone(serial: str) -> Phone:
        return Phone(name, AdbShell(serial, folder=address.folder), option=option)

    if len(address.serial) == 1:
        return phone(address.serial[0])
    return PhonePool(
        name, lambda: [phone(serial) for serial in adb.serials(address.serial, name=name, model=address.model)]
    )


class PhonePool:
    """Phones with one profile: processor, runtime and its layout must be equal, so what one measured holds for all.

    Networks that are compared are measured on one of them. Processes that measure at the same time get different ones.
    """

    def __init__(self, name: str, members: Sequence[Phone] | Callable[[], Sequence[Phone]]) -> None:
        """Phones called `name`: given, or found by a function when they are first needed."""
        self.name = name
        self._members = members
        self._current: Phone | None = None
        self._held = contextlib.ExitStack()
        self._lost: dict[str, float] = {}  # by serial number, when
        self._purpose = ""
        self._on_wait: Callable[[str], None] | None = None
        self._provenance: Provenance | None = None

    @cached_property
    def members(self) -> tuple[Phone, ...]:
        """The phones.

        Raises:
            DeviceUnavailable: none is attached.
            DeviceError: it is not clear which are meant.
        """
        return tuple(self._members() if callable(self._members) else self._members)

    def describe(self) -> Provenance:
        """What all of them are. One that somebody else has now is looked at when it is used.

        Raises:
            DeviceError: they differ; the message says in what.
        """
        if self._provenance is None:
            self._on_one("describe", Phone.describe)
            for phone in self.members:
                try:
                    with phone.reserve("describe", on_wait=unless_taken(phone.shell.name)):
                        self._must_be_alike(phone)
                except DeviceBusy:
                    pass
                except DeviceUnavailable:
                    self._lost[phone.shell.serial] = time.monotonic()
        assert self._provenance is not None
        return self._provenance

    @contextlib.contextmanager
    def reserve(self, purpose: str, *, on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
        """Takes a phone that is free, or waits for the first."""
        if self._current is not None:
            yield
            return
        self._purpose, self._on_wait = purpose, on_wait
        with self._held:
            self._take()
            try:
                yield
            finally:
                self._current = None

    def measure(
        self,
        models: Sequence[bytes],
        *,
        settings: RuntimeSettings,
        effort: Effort = Effort(),  # noqa: B008 - frozen
        on_slice: OnSlice | None = None,
        on_restart: OnRestart | None = None,
    ) -> list[Timing]:
        phones = 0

        def work(phone: Phone) -> list[Timing]:
            nonlocal phones
            phones += 1
            if phones > 1 and on_restart is not None:
                on_restart()
            return phone.measure(models, settings=settings, effort=effort, on_slice=on_slice, on_restart=on_restart)

        return self._on_one("measuring", work)

    def memory(self, model: bytes, *, settings: RuntimeSettings) -> int | None:
        return self._on_one("memory", lambda phone: phone.memory(model, settings=settings))

    def profile(self, model: bytes, *, settings: RuntimeSettings, runs: int = 50) -> tuple[OpTime, ...]:
        return self._on_one("profile", lambda phone: phone.profile(model, settings=settings, runs=runs))

    def optimize(self, model: bytes, *, settings: RuntimeSettings) -> bytes:
        return self._on_one("optimize", lambda phone: phone.optimize(model, settings=settings))

    def outputs(
        self, model: bytes, inputs: Mapping[str, np.ndarray[Any, Any]], *, settings: RuntimeSettings
    ) -> dict[str, np.ndarray[Any, Any]]:
        return self._on_one("outputs", lambda phone: phone.outputs(model, inputs, settings=settings))

    def _on_one(self, purpose: str, work: Callable[[Phone], Result]) -> Result:
        """Does something on the phone that is held; where that cannot be used any more, on another."""
        with self.reserve(purpose):
            failed: set[str] = set()
            while True:
                assert self._current is not None
                try:
                    self._must_be_alike(self._current)
                    return work(self._current)
                except DeviceUnavailable:
                    failed.add(self._current.shell.serial)
                    self._lost[self._current.shell.serial] = time.monotonic()
                    if not self._left(failed):
                        self._lost.clear()  # they may be back next time
                        raise
                    self._held.close()
                    self._take(failed)

    def _must_be_alike(self, phone: Phone) -> None:
        """Compares a phone with the first that was looked at."""
        found = phone.describe()
        self._provenance = first = self._provenance or found
        for key, value in found.key.items():
            if value != first.key[key]:
                raise DeviceError(
                    f"{self.name}: phones of a pool must be of one kind, but {key} is {first.key[key]!r} on one of them "
                    f"and {value!r} on {phone.shell.serial}: make them targets of their own"
                )

    def _left(self, failed: Collection[str]) -> list[Phone]:
        """Those that were not lost within the last minutes, and are not among those that failed just now."""
        now = time.monotonic()
        self._lost = {serial: then for serial, then in self._lost.items() if now - then < AGAIN_S}
        return [phone for phone in self.members if phone.shell.serial not in (*self._lost, *failed)]

    def _take(self, failed: Collection[str] = ()) -> None:
        """Takes a phone that is free, or waits for the first."""
        left = self._left(failed)
        free = [phone for phone in left if phone.holder() is None]
        phone = (free or left or self.members)[0]
        self._held.enter_context(phone.reserve(self._purpose, on_wait=self._on_wait))
        self._current = phone

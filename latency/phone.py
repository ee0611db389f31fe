"""A phone as a device: the runner in C on an installed runtime, kept off while it is hot or nearly empty."""

import json
import re
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from latency.adb import AdbShell
from latency.cool import Cool, cool_path, read_cool, write_cool
from latency.device import OnRestart, OnSlice
from latency.errors import DeviceError, DeviceUnfit, DeviceUnreachable
from latency.native_runner import job_files
from latency.phone_lock import hold_command
from latency.phone_state import STATE, PhoneState
from latency.provenance import Provenance
from latency.remote import WAITS_S, RemoteDevice
from latency.settings import Effort, RuntimeSettings
from latency.stand_in import stand_in
from latency.timing import Timing
from searchspace.errors import NasError

CHECK = 'cd "$1" && cat runtime.json && echo && sha256sum -c SHA256SUMS >/dev/null 2>&1 && sha256sum SHA256SUMS'

LOWEST_BATTERY = 0.15
HOT = 1.05  # the reference network takes this much longer than when it was cool
CAPPED = 0.95  # of the highest frequency that the core was ever allowed
CAPPED_IN_A_ROW = 40  # slices after which one stops and lets the phone cool
LUCK = 0.98  # of what the reference network took when cool: less than that is kept as its new time
COOLING_S = (10.0,) * 6 + (30.0,) * 18
"""Seconds between looks while a phone cools; about ten minutes in all."""
REFERENCE = Effort(processes=1, slices=8, tolerance=0.05, limit_s=1.0)


@dataclass(frozen=True)
class Runtime:
    """What was installed on a phone.

    Attributes:
        kind: ``bundle`` (Linux programs with a loader and C library of their own) or ``android``.
        version: of ONNX Runtime.
        abi: Android's name of the instruction set, such as ``arm64-v8a``.
        digest: hash of all its files' hashes.
    """

    kind: str
    version: str
    abi: str
    digest: str = ""


class Phone(RemoteDevice):
    """A phone over adb with an installed runtime."""

    shell: AdbShell

    def __init__(
        self,
        name: str,
        shell: AdbShell,
        *,
        option: str | None = None,
        runtime: str | None = None,
        silence_s: float = 180.0,
        waits_s: Sequence[float] = WAITS_S,
        cooling_s: Sequence[float] = COOLING_S,
        hot: float = HOT,
    ) -> None:
        """A phone called `name`.

        Args:
            name: of the target.
            shell: reaches it.
            option: what the command line calls the target, if not its name.
            runtime: folder of the runtime there, if not the installed one.
            silence_s: a runner that prints nothing for so many seconds is given up.
            waits_s: seconds before each new attempt when the connection broke.
            cooling_s: seconds between looks while it cools; after the last it is given up.
            hot: how many times as long as when cool the reference network may take.
        """
        super().__init__(name, shell, silence_s=silence_s, waits_s=waits_s)
        self._option = option or name
        self._folder = runtime or f"{shell.folder}/runtime"
        self._runtime: Runtime | None = None
        self._cooling_s = cooling_s
        self._hot = hot
        self._serial = shell.serial
        self._cool: dict[RuntimeSettings, Cool] = {}
        self._cap_khz = 0
        self._most_khz = 0
        self._expects_most = False  # that the core is allowed what it can do at most, as nothing is known of it yet
        self._capped = 0

    def state(self) -> PhoneState:
        """Battery, temperature and screen now.

        Raises:
            DeviceUnreachable: it gives no answer.
        """
        return PhoneState.parse(self.shell.run(["sh", "-c", STATE]).stdout.decode(errors="replace"))

    def holder(self) -> str | None:
        """Who uses it now, or None."""
        return self._lock.holder()

    def runtime(self) -> Runtime:
        """The installed runtime, whose files are compared with their hashes the first time.

        Raises:
            DeviceError: there is none, or it is damaged.
        """
        if self._runtime is None:
            done = self.shell.run(["sh", "-c", CHECK, "sh", self._folder])
            told, _, digest = done.stdout.decode(errors="replace").strip().partition("\n")
            install = f"run `nas targets install {self._option} --build`, or give it your own with --runtime"
            if not told:
                raise DeviceError(f"{self.shell.name}: no runtime is installed on the phone: {install}")
            if done.code:
                raise DeviceError(f"{self.shell.name}: the runtime on the phone is damaged: {install}")
            try:
                self._runtime = Runtime(**json.loads(told), digest=digest.split()[0])
            except (ValueError, TypeError) as error:
                raise DeviceError(
                    f"{self.shell.name}: the runtime on the phone was installed by another version: {install}"
                ) from error
        return self._runtime

    def describe(self) -> Provenance:
        if self._provenance is None:
            found, state = super().describe(), self._retried_state()
            cpu = f"{state.model}: {found.cpu}" if state.model else found.cpu
            system = f"Android {state.release}, {found.system}" if state.release else found.system
            self._provenance = replace(found, cpu=cpu, system=system)
            self._serial = state.serial or self._serial
        return self._provenance

    def measure(
        self,
        models: Sequence[bytes],
        *,
        settings: RuntimeSettings,
        effort: Effort = Effort(),  # noqa: B008 - frozen
        on_slice: OnSlice | None = None,
        on_restart: OnRestart | None = None,
    ) -> list[Timing]:
        """As `Device.measure`; what was taken while the phone was hot is dropped and measured again when it has cooled.

        It is compared with what it did when it was cool, in earlier sessions too.

        Raises:
            DeviceUnfit: it does not cool, or its battery is nearly empty.
        """
        if not models:
            return []
        with self.reserve("measuring"):
            provenance = self.describe()
            path = cool_path(self._serial, provenance, settings)
            looked = self._cool.get(settings)
            known = looked or read_cool(path)
            cool_ms = None if looked is None else looked.ms
            self._cap_khz = self._most_khz = 0 if known is None else known.cap_khz
            for attempt, pause in enumerate((0.0, *self._cooling_s)):
                time.sleep(pause)
                self._wait_until_cool()
                self._capped = 0
                self._expects_most = known is None and attempt < len(self._cooling_s)
                if known is None and not self._expects_most:
                    self._cap_khz = self._most_khz  # it never is allowed more, also when it is cool
                with suppress(_Capped):
                    if cool_ms is None:
                        found_ms = self._reference_ms(settings)
                        if known is not None and found_ms > self._hot * known.ms:  # slowed down from the start
                            continue
                        cool_ms = found_ms if known is None else known.ms
                    timings = super().measure(models, settings=settings, effort=effort, on_slice=on_slice)
                    found_ms = self._reference_ms(settings)
                    slower_ms, cool_ms = max(cool_ms, found_ms), min(cool_ms, found_ms)
                    if slower_ms <= self._hot * cool_ms:  # neither now nor before
                        self._cool[settings] = self._kept(path, known, cool_ms)
                        return timings
                if on_restart is not None:
                    on_restart()
            raise DeviceUnfit(
                f"{self.shell.name}: the phone is slowed down and does not get faster again ({self._retried_state()}): let it "
                "cool, take it off the charger or out of its case, switch battery saver off; the same command goes on"
                + ("" if known is None else f"; if it has become slower for good, delete {path}")
            )

    def _kept(self, path: Path, known: Cool | None, ms: float) -> Cool:
        """What the phone does when it is cool, kept; a little luck is no reason to expect more of it from now on."""
        found = Cool(ms if known is None or ms < LUCK * known.ms else known.ms, self._most_khz)
        if found != known:
            with suppress(NasError):  # nothing that was measured depends on it
                write_cool(path, found)
        return found

    def _job_files(self, job: Mapping[str, Any]) -> dict[str, bytes]:
        return job_files(job)

    def _runner(self, folder: str) -> list[str]:
        home = self._folder
        start = ["env", f"LD_LIBRARY_PATH={home}"]
        if self.runtime().kind == "bundle":
            start = [f"{home}/ld-linux-aarch64.so.1", "--library-path", home]
        return [*start, f"{home}/runner", folder, f"{home}/libonnxruntime.so"]

    def _holder(self, who: str) -> list[str]:
        return hold_command(self.shell.folder, who)

    def _lines(self, files: Mapping[str, bytes]) -> Generator[bytes, None, None]:
        self.runtime()
        for line in super()._lines(files):
            if not self._held_down(line):
                yield line

    def _recover(self, failures: int, error: DeviceUnreachable) -> None:
        if not self._met and failures == 1 and ":" in self.shell.serial:
            self.shell.reconnect()
            return
        super()._recover(failures, error)
        self.shell.reconnect()

    def _held_down(self, line: bytes) -> bool:
        """Whether a line is of a slice during which the core was not allowed its highest frequency.

        Raises:
            _Capped: it is one of many in a row.
        """
        found = re.search(rb'"cap_khz": (\d+)', line[-200:])
        if found is None:
            most = re.search(rb'"max_khz": (\d+)', line[-200:]) if self._expects_most else None
            self._cap_khz = max(self._cap_khz, int(most[1]) if most else 0)
            return False
        cap = int(found[1])
        self._most_khz = max(self._most_khz, cap)
        self._cap_khz = max(self._cap_khz, cap)
        held_down = cap < CAPPED * self._cap_khz
        self._capped = self._capped + 1 if held_down else 0
        if self._capped >= CAPPED_IN_A_ROW:
            raise _Capped
        return held_down

    def _reference_ms(self, settings: RuntimeSettings) -> float:
        [timing] = super().measure([_reference()], settings=settings, effort=REFERENCE)
        return timing.low_ms

    def _retried_state(self) -> PhoneState:
        failures = 0
        while True:
            try:
                return self.state()
            except DeviceUnreachable as error:
                failures += 1
                self._recover(failures, error)

    def _wait_until_cool(self) -> None:
        for pause in (*self._cooling_s, None):
            state = self._retried_state()
            if state.battery is not None and state.battery < LOWEST_BATTERY and not state.charging:
                raise DeviceUnfit(
                    f"{self.shell.name}: the battery must hold at least {LOWEST_BATTERY:.0%}, it holds {state.battery:.0%}: "
                    "charge it; the same command goes on"
                )
            if state.hot is None:
                return
            if pause is None:
                raise DeviceUnfit(
                    f"{self.shell.name}: too hot to measure, {state.hot}: let it cool; the same command goes on"
                )
            time.sleep(pause)


class _Capped(Exception):
    """The core's frequency has been held down for many slices."""


@cache
def _reference() -> bytes:
    """The network that tells a cool phone from a hot one; about 20 million multiply-accumulates."""
    from searchspace.architecture import lower
    from searchspace.references import reference

    return stand_in(lower(reference("mobilenet_v2", width_multiplier=0.35, resolution=96)), "fp32")

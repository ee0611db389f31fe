"""What a phone tells of its battery, its temperature and its screen."""

import re
from dataclasses import dataclass

STATE = (
    "dumpsys battery; dumpsys thermalservice | grep 'Thermal Status'; dumpsys power | grep mWakefulness=; "
    'echo "model: $(getprop ro.product.model)"; echo "release: $(getprop ro.build.version.release)"; '
    'echo "serialno: $(getprop ro.serialno)"'
)
"""Prints what `PhoneState.parse` reads; run by a shell on the phone."""

HOT_STATUS = 2  # Android's "moderate": the system slows itself down noticeably
HOT_BATTERY_C = 45.0


@dataclass(frozen=True)
class PhoneState:
    """What a phone tells of itself; None where it does not.

    Attributes:
        battery: charge in [0, 1].
        charging: whether it is plugged in.
        battery_c: the battery's temperature in degrees Celsius.
        thermal_status: Android's, from 0 (none) to 6 (shutdown).
        awake: whether the screen is on.
        model: the model's name.
        release: of Android.
        serial: its serial number, however it is reached.
    """

    battery: float | None
    charging: bool
    battery_c: float | None
    thermal_status: int | None
    awake: bool | None
    model: str | None
    release: str | None
    serial: str | None = None

    @staticmethod
    def parse(text: str) -> "PhoneState":
        """Reads what `STATE` prints."""

        def find(pattern: str) -> str | None:
            found = re.search(pattern, text, re.MULTILINE)
            return found[1].strip() or None if found else None

        def number(pattern: str) -> float | None:
            found = find(pattern)
            return None if found is None else float(found)

        level, tenths, status = (
            number(r"^\s*level: (\d+)"),
            number(r"^\s*temperature: (-?\d+)"),
            number(r"Status: (\d+)"),
        )
        awake = find(r"mWakefulness=(\w+)")
        return PhoneState(
            battery=None if level is None else level / 100,
            charging=find(r"^\s*\w+ powered: (true)") is not None,
            battery_c=None if tenths is None else tenths / 10,
            thermal_status=None if status is None else int(status),
            awake=None if awake is None else awake == "Awake",
            model=find(r"^model: (.*)$"),
            release=find(r"^release: (.*)$"),
            serial=find(r"^serialno: (.*)$"),
        )

    @property
    def hot(self) -> str | None:
        """Why it is too hot to measure, or None."""
        if self.thermal_status is not None and self.thermal_status >= HOT_STATUS:
            return f"its thermal status is {self.thermal_status}"
        if self.battery_c is not None and self.battery_c >= HOT_BATTERY_C:
            return f"its battery has {self.battery_c:g} °C"
        return None

    def __str__(self) -> str:
        parts = [] if self.battery is None else [f"battery {self.battery:.0%}{', charging' if self.charging else ''}"]
        parts += [] if self.battery_c is None else [f"{self.battery_c:g} °C"]
        parts += [] if self.thermal_status is None else [f"thermal status {self.thermal_status}"]
        parts += [] if self.awake is None else [f"screen {'on' if self.awake else 'off'}"]
        return ", ".join(parts) or "it tells nothing of battery and temperature"

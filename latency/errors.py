"""The errors of measuring and predicting latency.

NasError
└── LatencyError
    ├── TargetError            a target is unknown, or its file breaks a rule
    ├── DeviceError            a device cannot be reached, or cannot run what it was given
    │   └── DeviceUnavailable  nothing can be measured on it now, but later
    │       ├── DeviceUnreachable  it gives no answer (any more)
    │       ├── DeviceBusy         one would have to wait for it, and did not want to
    │       └── DeviceUnfit        it is too hot, or its battery nearly empty
    ├── UnstableMeasurement    a measurement never settled within its time limit
    └── ModelError             a latency model's file is damaged, or made for something else
        └── UnmeasuredKernel   a network needs a kernel that the model never measured
"""

from searchspace.errors import NasError


class LatencyError(NasError):
    """Anything that keeps a latency from being known."""


class TargetError(LatencyError):
    """A target is unknown, or its file breaks a rule."""


class DeviceError(LatencyError):
    """A device cannot be reached, or cannot run what it was given."""


class DeviceUnavailable(DeviceError):
    """Nothing can be measured on a device now: worth another try later, nothing is wrong with what it was given."""


class DeviceUnreachable(DeviceUnavailable):
    """A device gives no answer, or the connection broke."""


class DeviceBusy(DeviceUnavailable):
    """One would have to wait for a device, and did not want to; the message says for what, most often for who has it."""


class DeviceUnfit(DeviceUnavailable):
    """A device answers, but is not as it must be for measuring: it is slowed down by its heat, or its battery is nearly empty."""


class UnstableMeasurement(LatencyError):
    """A measurement did not settle within its time limit; it is refused, never averaged away."""


class ModelError(LatencyError):
    """A latency model's file is damaged, or it was made for another device, runtime or precision."""


class UnmeasuredKernel(ModelError):
    """A network needs a kernel that the model never measured; the message names it and the command that measures it."""

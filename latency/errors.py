"""The errors of measuring and predicting latency.

NasError
└── LatencyError
    ├── TargetError            a target is unknown, or its file breaks a rule
    ├── DeviceError            a device cannot be reached, or cannot run what it was given
    │   └── DeviceUnreachable  it gives no answer (any more); it may again later
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


class DeviceUnreachable(DeviceError):
    """A device gives no answer, or the connection broke: worth another try later, nothing is wrong with what it was given."""


class UnstableMeasurement(LatencyError):
    """A measurement did not settle within its time limit; it is refused, never averaged away."""


class ModelError(LatencyError):
    """A latency model's file is damaged, or it was made for another device, runtime or precision."""


class UnmeasuredKernel(ModelError):
    """A network needs a kernel that the model never measured; the message names it and the command that measures it."""

"""The root of the error tree, and the errors of the search space.

    NasError                         the user's input or surroundings are wrong: one line, exit code 2
    ├── ArchitectureError            an architecture breaks a rule, or its file does
    ├── SpaceError                   a space file breaks a rule
    ├── latency.errors.LatencyError  a target, a device or a latency model cannot do what was asked
    └── nas.errors.*                 data, training, studies, checkpoints, exports

A message says what must hold, what was got and what to do:
``block 7 (UIB): stride 2 needs a depthwise kernel, got dw_start=0 and dw_mid=0``.
"""


class NasError(Exception):
    """Something the user can mend. The message is one line; anything else that is raised is a defect."""


class ArchitectureError(NasError):
    """An architecture, or the file that holds it, breaks a rule."""


class SpaceError(NasError):
    """A space file breaks a rule; the message names the key."""

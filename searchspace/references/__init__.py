"""Every published architecture by name: MobileNetV1 to V4 and SqueezeNet, as they were released.

Where a paper and its release differ, the release counts, and the function's docstring says what differs.
"""

import dataclasses
import difflib
from collections.abc import Callable

from searchspace.architecture import Architecture
from searchspace.errors import ArchitectureError
from searchspace.references.fire import (
    squeezenet,
    squeezenet_1_0,
    squeezenet_1_0_complex_bypass,
    squeezenet_1_0_simple_bypass,
    squeezenet_1_1,
)
from searchspace.references.mobilenet1 import mobilenet_v1, mobilenet_v1_full_conv
from searchspace.references.mobilenet2 import mobilenet_v2
from searchspace.references.mobilenet3 import mobilenet_v3_large, mobilenet_v3_small
from searchspace.references.mobilenet4 import (
    mobilenet_v4_conv_l,
    mobilenet_v4_conv_m,
    mobilenet_v4_conv_s,
    mobilenet_v4_hybrid_l,
    mobilenet_v4_hybrid_m,
)

__all__ = ["REFERENCES", "reference", "squeezenet"]

REFERENCES: dict[str, Callable[[float], Architecture]] = {
    build.__name__: build
    for build in (
        mobilenet_v1,
        mobilenet_v1_full_conv,
        mobilenet_v2,
        mobilenet_v3_large,
        mobilenet_v3_small,
        mobilenet_v4_conv_s,
        mobilenet_v4_conv_m,
        mobilenet_v4_conv_l,
        mobilenet_v4_hybrid_m,
        mobilenet_v4_hybrid_l,
        squeezenet_1_0,
        squeezenet_1_0_simple_bypass,
        squeezenet_1_0_complex_bypass,
        squeezenet_1_1,
    )
}


def reference(
    name: str,
    *,
    width_multiplier: float = 1.0,
    resolution: int | None = None,
    classes: int = 1000,
    channels: int = 3,
) -> Architecture:
    """A published architecture.

    Args:
        name: one of `REFERENCES`.
        width_multiplier: α, applied by the family's own rule; above 0.
        resolution: side of the input in pixels (ρ); None: the one it was published with.
        classes: outputs.
        channels: of the input.

    Raises:
        ArchitectureError: the name is unknown, or a value is out of range.
    """
    if name not in REFERENCES:
        close = difflib.get_close_matches(name, REFERENCES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(REFERENCES)}"
        raise ArchitectureError(f"no reference architecture is called {name!r}; {hint}")
    if not 0 < width_multiplier < 100:
        raise ArchitectureError(f"width_multiplier must be above 0 (and below 100), got {width_multiplier}")
    published = REFERENCES[name](width_multiplier)
    return dataclasses.replace(
        published,
        resolution=published.resolution if resolution is None else resolution,
        classes=classes,
        channels=channels,
        name=name if width_multiplier == 1 else f"{name} ×{width_multiplier:g}",
    )

"""A latency model fitted to the pretended device, shared by the tests that need one."""

import tempfile
from functools import lru_cache
from pathlib import Path

from latency.fake import FakeDevice
from latency.model import LatencyModel
from latency.profiling import profile_target
from latency.samples import varied_architectures
from latency.settings import Effort
from latency.target import load_target

QUICK = Effort(processes=1, slices=4)


@lru_cache(maxsize=1)
def fake_model() -> LatencyModel:
    """A model of 128 varied networks on a device without noise."""
    with tempfile.TemporaryDirectory() as folder:
        return profile_target(
            load_target("host"),
            varied_architectures(0),
            networks=128,
            device=FakeDevice(),
            effort=QUICK,
            folder=Path(folder),
        )

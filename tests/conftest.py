"""Settings of the whole suite: property tests have no deadline, and torch one thread in each of the suite's processes.

Nothing here asserts wall-clock time; several threads in each of several processes would only wait for one another.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, here and in what tests start
settings.register_profile("pocketnas", deadline=None)
settings.load_profile("pocketnas")


@pytest.fixture(scope="session", autouse=True)
def _no_waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody waits for the disk, as no power cut is to be survived; and each of the suite's processes takes turns with itself
    only: what one measures must not make the other's trainings wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETNAS_LOCKS", str(tmp_path_factory.mktemp("devices")))
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield

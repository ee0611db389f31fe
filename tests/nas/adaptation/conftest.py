"""All that trims: on one thread, and without moments of rest between measurements."""

from collections.abc import Iterator

import pytest
import torch

from nas import calibration


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Such small networks are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretended devices need no moment of rest."""
    monkeypatch.setattr(calibration, "PAUSE_S", 0.0)

"""All that trims: on one thread, and without moments of rest between measurements."""

import pytest

from nas import calibration


@pytest.fixture(autouse=True)
def hurried(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretended devices need no moment of rest."""
    monkeypatch.setattr(calibration, "PAUSE_S", 0.0)

"""A process says that it lives, again and again, while it is at something."""

import threading
from collections.abc import Callable
from types import TracebackType

from optuna.exceptions import UpdateFinishedTrialError

from nas import database


class Beating:
    """Calls `beat` inside a ``with``: with 0 at its begin, then with 1, 2, … every `HEARTBEAT_S` from a thread of its own."""

    def __init__(self, beat: Callable[[int], None]) -> None:
        self._beat = beat
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def __enter__(self) -> None:
        self._beat(0)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(1.0)  # it may be waiting for the server

    def _go_on(self) -> None:
        count = 1
        while not self._end.wait(database.HEARTBEAT_S):
            try:
                self._beat(count)
            except UpdateFinishedTrialError:
                return
            except Exception:  # whoever is at work meets it, too, and tells it
                continue
            count += 1

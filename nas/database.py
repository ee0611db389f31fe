"""A study's storage on a database server: waited for while it is away, with a heartbeat of every trial at work."""

import functools
import json
import math
import re
import threading
import time
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import optuna
import sqlalchemy.exc
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url

from nas.errors import StudyError
from nas.trial_rows import read_trial, read_trials, trials_without_heartbeat, write_detail, write_params
from nas.urls import shown, without_secrets

HEARTBEAT_S = 10
GRACE_S = 60  # without a heartbeat, after which a trial is given to another process
PATIENCE_S = 600.0  # with a server that was reached before
OPENING_S = 20.0  # with one that was not
TRY_EVERY_S = 1.0

_thread = threading.local()
_REPEATED = (
    *sorted(optuna.storages.BaseStorage.__abstractmethods__),
    "record_heartbeat",
    "_get_stale_trial_ids",
    "_create_new_trial",
    "_get_best_trial_id",
    "_get_trials",
    "_without_heartbeat",
)
"""What Optuna asks of a storage, and what its cache in front of one does."""


class ServerStorage(RDBStorage):
    """Optuna's storage on a server. What fails because the server is away is tried again until it is back.

    Attributes:
        reached_at: since when it has answered without a pause, on the monotonic clock; who was away himself cannot tell
            whose heartbeats are missing.
        address: for people.
        on_wait: told once when the server is away and is waited for.
    """

    address = "a database"
    on_wait: Callable[[str], None] | None = None
    away_told = False

    def __init__(self, url: str) -> None:
        self.reached_at = math.inf
        self._looked_at = -math.inf
        self._told: dict[int, dict[str, tuple[float, BaseDistribution]]] = {}
        self._telling = threading.RLock()
        super().__init__(url)
        self.heartbeat_interval, self.grace_period = HEARTBEAT_S, GRACE_S
        self.reached_at = time.monotonic()

    def _set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None,
    ) -> None:
        """Keeps a decision until anything else is asked or told: a candidate has dozens, which are written together."""
        with self._telling:
            self._told.setdefault(trial_id, {})[param_name] = (param_value_internal, distribution)

    def tell(self) -> None:
        """Write the decisions that were kept."""
        with self._telling:
            if self._told:
                write_params(self.engine, self._told)
                self._told = {}

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return read_trials(self.engine, study_id, states, included_trial_ids, trial_id_greater_than)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return read_trial(self.engine, trial_id) or super().get_trial(trial_id)  # which says that there is none

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if not self._written(models.TrialUserAttributeModel, trial_id, key, value):
            super().set_trial_user_attr(trial_id, key, value)  # which says what is wrong

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if not self._written(models.TrialSystemAttributeModel, trial_id, key, value):
            super().set_trial_system_attr(trial_id, key, value)

    def _written(self, model: Any, trial_id: int, key: str, value: Any) -> bool:
        told = {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        return write_detail(self.engine, model, told, key="key")

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        model = models.TrialIntermediateValueModel
        value, kind = model.intermediate_value_to_stored_repr(intermediate_value)
        told = {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": value,
            "intermediate_value_type": kind,
        }
        if not write_detail(self.engine, model, told, key="step"):
            super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def beat(self, trial_id: int, count: int) -> None:
        """Say that somebody is at the trial."""
        self.record_heartbeat(trial_id)

    def silent(self, study_id: int, trials: Sequence[FrozenTrial]) -> set[int]:
        """Ids of running trials without a heartbeat for too long; looked for every `HEARTBEAT_S`, and not found in between."""
        now = time.monotonic()
        if now - self._looked_at < HEARTBEAT_S:
            return set()
        self._looked_at = now
        for trial_id in self._without_heartbeat([trial._trial_id for trial in trials]):
            self.record_heartbeat(trial_id)  # its process may have died before the first
        if now - self.reached_at < GRACE_S:  # not every living process had time for a heartbeat
            return set()
        return set(self._get_stale_trial_ids(study_id))

    def _without_heartbeat(self, trial_ids: Sequence[int]) -> list[int]:
        return trials_without_heartbeat(self.engine, trial_ids)


def open_server(url: str, on_wait: Callable[[str], None] | None = None) -> ServerStorage:
    """The storage on a server, its tables made where they are missing; a server that does not answer is given some seconds.

    Args:
        url: of the database.
        on_wait: told when the server is away, now or later.

    Raises:
        StudyError: it cannot be reached or refuses us. No message holds the password.
    """
    try:
        where = make_url(_with_driver(url))
        where.get_dialect()
        proper = "@" not in (where.host or "")  # of a password
    except (sqlalchemy.exc.ArgumentError, ValueError):  # its message may hold the password
        proper = False
    if not proper:
        raise StudyError(
            "the study's storage must be a URL such as postgresql://user@host/database or sqlite:///study.db "
            "(in a password, @ is written %40 and / is %2F); check --storage"
        )
    address, deadline, told = shown(url), time.monotonic() + OPENING_S, False
    while True:
        try:
            storage = ServerStorage(where.render_as_string(hide_password=False))
            storage.address, storage.on_wait = address, on_wait
            return storage
        except ImportError:
            extra = where.get_backend_name() == "postgresql"
            remedy = "pip install 'pocketnas[postgresql]'" if extra else "install the database's Python driver"
            raise StudyError(f"{address}: the storage needs a driver that is not installed: {remedy}") from None
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            reason = without_secrets(reason_of(error), url)
            if not (_is_away(error) or _is_being_made(error)):
                raise StudyError(f"{address}: the study's storage refuses ({reason}); check --storage") from None
            if time.monotonic() > deadline:
                raise StudyError(
                    f"{address}: the study's storage must be reachable, tried for {OPENING_S:g} s ({reason}); "
                    "start the server or check --storage"
                ) from None
            if not told and on_wait is not None and _is_away(error):
                on_wait(waiting_for(address, reason))
                told = True
            time.sleep(TRY_EVERY_S)


def waiting_for(address: str, reason: str) -> str:
    """What is said of a storage that is away."""
    return f"waiting for the study's storage, {address}, to answer ({reason})"


def _with_driver(url: str) -> str:
    return re.sub(r"^postgres(ql)?:", "postgresql+psycopg:", url)


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error


def reason_of(error: BaseException) -> str:
    """What a storage's error says, in one line."""
    cause = _cause(error)
    details = getattr(cause, "details", None)  # a proxy's
    lines = str((callable(details) and details()) or getattr(cause, "orig", None) or cause).strip().splitlines()
    return lines[0] if lines else type(cause).__name__


_PASSING = (
    "the database system is",
    "terminating connection",
    "too many clients",  # SQLSTATE 53300, like the next two
    "too many connections",
    "remaining connection slots are reserved",
)
"""What PostgreSQL calls fatal and is over after a while."""


def _is_away(error: BaseException) -> bool:
    """Whether the server is not there, starting, stopping or full; not where it answers that it will not have us."""
    cause = _cause(error)
    if isinstance(cause, sqlalchemy.exc.PendingRollbackError):  # lost between two queries of a transaction
        return True
    if not isinstance(cause, (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)):
        return False
    text = str(cause)
    return "FATAL" not in text or any(words in text for words in _PASSING)


def _is_being_made(error: BaseException) -> bool:
    """Whether another process was making the same tables."""
    return isinstance(_cause(error), (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError))


def make_patient(kind: type, names: Iterable[str], is_away: Callable[[Exception], bool]) -> None:
    """Repeats a storage's methods of these names for as long as its server is away.

    Args:
        kind: of storage; its instances say in `reached_at` since when the server has answered, infinite before it ever did, in
            `address` where it is, in `on_wait` who is told that it is away, and in `away_told` whether that was done.
        names: of the methods.
        is_away: whether an error says that the server is not there.
    """
    for name in names:
        setattr(kind, name, _patient(getattr(kind, name), is_away))


def _patient(method: Callable[..., Any], is_away: Callable[[Exception], bool]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(_thread, "inside", False):  # of another call, whose transaction is over too: that one is repeated
            return method(self, *args, **kwargs)
        _thread.inside = True
        try:
            return repeated(self, *args, **kwargs)
        finally:
            _thread.inside = False

    def repeated(self: Any, *args: Any, **kwargs: Any) -> Any:
        deadline, renewed = None, False
        while True:
            try:
                result = method(self, *args, **kwargs)
            except Exception as error:
                if not renewed and getattr(_cause(error), "connection_invalidated", False):
                    renewed = True  # it was lost while nobody used it, and another is made at once
                    continue
                now = time.monotonic()
                deadline = now + PATIENCE_S if deadline is None else deadline
                if math.isinf(self.reached_at) or not is_away(error) or now > deadline:
                    raise
                _tell_away(self, error)
                time.sleep(TRY_EVERY_S)
                continue
            if deadline is not None:
                self.reached_at, self.away_told = time.monotonic(), False
            return result

    return call


def _tell_away(storage: Any, error: Exception) -> None:
    """Once, by whichever thread meets it first."""
    if not storage.away_told and storage.on_wait is not None:
        reason = without_secrets(reason_of(error), getattr(storage, "url", ""))
        storage.on_wait(waiting_for(storage.address, reason))
    storage.away_told = True


def _after_telling(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: ServerStorage, *args: Any, **kwargs: Any) -> Any:
        self.tell()
        return method(self, *args, **kwargs)

    return call


for _name in _REPEATED:
    if _name not in ("set_trial_param", "record_heartbeat"):  # the former keeps, the latter is another thread's
        setattr(ServerStorage, _name, _after_telling(getattr(ServerStorage, _name)))
make_patient(ServerStorage, _REPEATED, _is_away)

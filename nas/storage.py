"""Where studies live: opening one in an Optuna storage, and telling what goes wrong with it."""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.event
import sqlalchemy.exc
from optuna.study import StudyDirection
from sqlalchemy.engine import make_url

from nas.database import open_server, reason_of
from nas.errors import StudyError
from nas.proxy import SCHEME, open_proxy
from nas.urls import shown

FORMAT = 1
SQLITE_PATIENCE_S = 60.0
IDENTITY, LIMITS, BASE, PLAN = "identity", "limits", "base", "plan"
STUDY_FILE = "study.json"  # in a run's folder: which study of the storage was opened last


def open_study(
    url: str,
    name: str,
    *,
    identity: Mapping[str, Any],
    limits: Mapping[str, float] | None = None,
    costs: int = 0,
    on_wait: Callable[[str], None] | None = None,
) -> optuna.Study:
    """The study `name` in an Optuna storage, made if it is not there; one of its own for every set of limits.

    Args:
        url: such as ``sqlite:///study.db``, ``postgresql://…`` or ``grpc://…``, a proxy's.
        name: the study's; that of other limits has them in its name.
        identity: fingerprints of what is searched; a study of anything else is refused.
        limits: what a candidate must stay within.
        costs: how many objectives it minimises, beside the one it maximises.
        on_wait: told when a storage on a server is away and is waited for.

    Raises:
        StudyError: the storage cannot be used, or the study is of something else.
    """
    storage, limits = open_storage(url, on_wait=on_wait), dict(limits or {})
    identity = {"format": FORMAT, **identity}
    study = _opened(storage, name, identity=identity, costs=costs)
    if study.user_attrs.get(LIMITS, limits) != limits:
        study = _opened(storage, f"{name}-{_limits_name(limits)}", identity=identity, costs=costs)
    attributes = study.user_attrs
    if LIMITS not in attributes:
        study.set_user_attr(LIMITS, limits)
    if BASE not in attributes:
        study.set_user_attr(BASE, name)
    return study


def open_storage(
    url: str, *, make: bool = True, on_wait: Callable[[str], None] | None = None
) -> optuna.storages.BaseStorage:
    """An Optuna storage, with its tables made where they are missing.

    Args:
        url: as for `open_study`.
        make: whether to make a file that is not there.
        on_wait: told when a server is away and is waited for.

    Raises:
        StudyError: it cannot be reached, or there is no such kind or file.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if re.match(r"sqlite(\+\w+)?:", url):
            file = make_url(url).database
            if not make and file and not Path(file).is_file():
                raise StudyError(f"{url}: there is no such file; check --storage")
            return _sqlite_storage(url)
        if url.startswith(f"{SCHEME}:"):
            return open_proxy(url, on_wait)
        return optuna.storages.get_storage(open_server(url, on_wait) if "://" in url else url)
    except StudyError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("sqlalchemy", "optuna", "builtins"):
            raise
        if _SCHEMA in str(error):
            raise StudyError(_of_another_optuna(error, shown(url))) from error
        raise StudyError(f"the study's storage cannot be used ({first_line(error)}); check --storage") from error


_SCHEMA = "compatible with the table schema"
"""What Optuna says of a storage that another version made."""


def _of_another_optuna(error: Exception, address: str) -> str:
    made_by = re.search(r"set up by optuna ([^)\s]+)\)", str(error))
    by = f" ({made_by[1]})" if made_by else ""
    here = f"this is Optuna {optuna.__version__}"
    if "storage upgrade" in str(error):
        return (
            f"{address}: was made by an older version of Optuna{by}, {here}: run `optuna storage upgrade --storage URL`"
        )
    return f"{address}: was made by a newer version of Optuna{by}, {here}: pip install -U optuna, or give another --storage"


def require_format(name: str, identity: Mapping[str, Any]) -> None:
    """Checks that this version can read a study.

    Raises:
        StudyError: it is of a newer format.
    """
    found = identity.get("format", FORMAT)
    if found != FORMAT:
        raise StudyError(
            f"study {name!r} must be of format {FORMAT}, got {found!r}: a newer version of pocketnas made it; upgrade this "
            "one, or give another --study"
        )


def _sqlite_storage(url: str) -> optuna.storages.BaseStorage:
    """A file that several processes may work on: each transaction has it for itself from its start.

    SQLite knows no locks on rows, which Optuna relies on so that no two processes take the same queued trial.
    """
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": SQLITE_PATIENCE_S}})
    sqlalchemy.event.listen(storage.engine, "connect", _leave_transactions_to_us)
    sqlalchemy.event.listen(storage.engine, "begin", _begin_alone)
    storage.engine.dispose()  # connections made before
    return optuna.storages.get_storage(storage)


def _leave_transactions_to_us(connection: Any, record: object) -> None:
    connection.isolation_level = None


def _begin_alone(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def base_name(study: optuna.Study | optuna.study.StudySummary) -> str:
    """What was asked for when the study was made; one of other limits has another name."""
    return str(study.user_attrs.get(BASE, study.study_name))


@contextmanager
def failures_told() -> Iterator[None]:
    """Says what a storage raises in the midst of work in one line; a decorator, too.

    Raises:
        StudyError: the storage failed.
    """
    try:
        yield
    except Exception as error:
        if not is_of_storage(error):
            raise
        raise StudyError(
            f"the study's storage failed ({reason_of(error)}); finished trials are kept, run the same again"
        ) from error


def is_of_storage(error: BaseException) -> bool:
    """Whether an error is a database's, or a proxy's in front of one."""
    kinds: tuple[type[BaseException], ...] = (
        optuna.exceptions.StorageInternalError,
        sqlalchemy.exc.SQLAlchemyError,
    )
    if "grpc" in sys.modules:
        kinds += (sys.modules["grpc"].RpcError,)
    return isinstance(error, kinds)


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _opened(
    storage: optuna.storages.BaseStorage, name: str, *, identity: Mapping[str, Any], costs: int
) -> optuna.Study:
    directions = [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * costs]
    try:
        study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    except optuna.exceptions.StorageInternalError as error:
        raise StudyError(f"the study's storage cannot be used ({first_line(error)}); check --storage") from error
    known = study.user_attrs.get(IDENTITY)
    if known is None:
        study.set_user_attr(IDENTITY, dict(identity))
    elif known != identity:
        require_format(name, known)
        differing = sorted(key for key in known.keys() | identity.keys() if known.get(key) != identity.get(key))
        raise StudyError(
            f"study {name!r} was made for another {', '.join(differing)}; give the same again, or choose another --out or --study"
        )
    return study


def _limits_name(limits: Mapping[str, float]) -> str:
    others = {name: most for name, most in limits.items() if name != "budget_ms"}
    digest = hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()[:6]
    return f"{limits.get('budget_ms', 0):g}ms" + (f"-{digest}" if others else "")

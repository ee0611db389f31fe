"""A study's storage behind Optuna's gRPC proxy: many processes share the proxy's few connections to the database.

    workers ── grpc://host:port ──► proxy (`nas proxy`) ──► PostgreSQL

The protocol has no heartbeats, so a process that is at a trial counts up an attribute of it. Whoever sees a count stand still for
`GRACE_S` on its own clock takes the process for dead: no two machines' clocks are compared.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.storages import GrpcStorageProxy
from optuna.trial import FrozenTrial

from nas import database
from nas.errors import StudyError
from nas.urls import shown

BEAT = "beat"
SCHEME, PORT = "grpc", 13000
THREADS = 32  # of the proxy
REMEDY = "pip install 'pocketnas[grpc]'"


class ProxyStorage(GrpcStorageProxy):
    """Optuna's client. What fails because the proxy is away is tried again until it is back.

    Attributes:
        reached_at: since when it has answered without a pause, on the monotonic clock.
        address: for people.
        on_wait: told once when the proxy is away and is waited for.
    """

    on_wait: Callable[[str], None] | None = None
    away_told = False

    def __init__(self, host: str, port: int) -> None:
        self.reached_at = math.inf
        self.address = f"{SCHEME}://{host}:{port}"
        self._counts: dict[int, tuple[object, float]] = {}
        super().__init__(host=host, port=port)

    def beat(self, trial_id: int, count: int) -> None:
        """Say that somebody is at the trial."""
        self.set_trial_user_attr(trial_id, BEAT, count)

    def silent(self, trials: Iterable[FrozenTrial]) -> set[int]:
        """Ids of the trials whose count has stood still for too long, seen from here."""
        now, before = time.monotonic(), self._counts
        self._counts = {}
        for trial in trials:
            count = trial.user_attrs.get(BEAT)
            known = before.get(trial._trial_id)
            self._counts[trial._trial_id] = known if known is not None and known[0] == count else (count, now)
        return {
            trial_id
            for trial_id, (_, since) in self._counts.items()
            if now - max(since, self.reached_at) > database.GRACE_S
        }


def open_proxy(url: str, on_wait: Callable[[str], None] | None = None) -> ProxyStorage:
    """The storage behind a proxy, such as ``grpc://host:13000``; one that does not answer is given some seconds.

    Args:
        url: of the proxy.
        on_wait: told when it is away later.

    Raises:
        StudyError: it cannot be reached, or gRPC is not installed.
    """
    where = urlsplit(url)
    try:
        host, port = where.hostname, where.port or PORT
    except ValueError:
        host, port = None, PORT
    if not host:
        raise StudyError(f"a proxy must be given as grpc://host:{PORT}, got {shown(url)!r}; check --storage")
    try:
        import grpc  # noqa: F401
    except ImportError:
        raise StudyError(f"{shown(url)}: the storage needs gRPC, which is not installed: {REMEDY}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = ProxyStorage(host, port)
    try:
        storage.wait_server_ready(database.OPENING_S)
    except ConnectionError:
        storage.close()
        raise StudyError(
            f"{shown(url)}: the study's storage must be reachable, tried for {database.OPENING_S:g} s; "
            "start the proxy (`nas proxy`) or check --storage"
        ) from None
    storage.reached_at, storage.on_wait = time.monotonic(), on_wait
    return storage


def serve(storage: optuna.storages.BaseStorage, *, host: str, port: int) -> Any:
    """Starts a proxy in front of a storage, in threads of this process; returns the server, which `stop` ends.

    Raises:
        StudyError: gRPC is not installed, or the port is taken.
    """
    try:
        import grpc
        from optuna.storages._grpc.auto_generated import api_pb2_grpc
        from optuna.storages._grpc.servicer import OptunaStorageProxyService
    except ImportError:
        raise StudyError(f"a proxy needs gRPC, which is not installed: {REMEDY}") from None
    server = grpc.server(ThreadPoolExecutor(max_workers=THREADS))
    service = OptunaStorageProxyService(storage)
    api_pb2_grpc.add_StorageServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    try:
        server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        raise StudyError(f"port {port} of {host} must be free; choose another --port") from None
    server.start()
    return server


def _is_away(error: BaseException) -> bool:
    import grpc

    return isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.UNAVAILABLE


database.make_patient(ProxyStorage, optuna.storages.BaseStorage.__abstractmethods__, _is_away)

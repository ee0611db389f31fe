"""Optuna's dashboard on the study of a run, with what we know of its trials beside them.

The architecture of each trial becomes its note, the report of the run an artefact of its study. Both are written into the study
(as the dashboard's own notes are): a note once, the report in place of a former one.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.trial import FrozenTrial

from nas.errors import ReportError
from nas.sampling.history import CANDIDATE
from nas.storage import IDENTITY, open_storage
from searchspace.architecture import Architecture
from searchspace.files import write_atomically

ARTIFACTS, REPORT = "artifacts", "report.html"  # folder within the run's, and what the report is called
_CONSTRAINT = "constraints:"  # how Optuna 5 names each constraint of a trial
_CONSTRAINTS = "constraints"  # where the dashboard looks for all of them


def attach_architectures(storage: optuna.storages.BaseStorage, name: str | None = None) -> None:
    """Write the architectures of a study's candidates where the dashboard shows them; what is there already stays.

    Args:
        storage: of the study.
        name: the study's; None: every search in the storage.

    Raises:
        ReportError: there is no such study, or the extra is not installed.
    """
    dashboard = _dashboard()
    for one in optuna.get_all_study_names(storage) if name is None else [name]:
        study = _study(storage, one)
        if IDENTITY not in study.user_attrs:  # somebody else's
            continue
        for trial in study.get_trials(deepcopy=False):
            candidate = trial.user_attrs.get(CANDIDATE)
            shown = optuna.Trial(study, trial._trial_id)
            if candidate is not None and not dashboard.get_note(shown):
                dashboard.save_note(shown, _note(candidate))


def attach_report(storage: optuna.storages.BaseStorage, run: Path, name: str, html: str) -> None:
    """Attach the report of a run to its study, in place of a former one.

    Raises:
        ReportError: there is no such study.
    """
    study = _study(storage, name)
    store = artifact_store(run)
    for meta in get_all_artifact_meta(study):
        if meta.filename == REPORT:
            store.write(meta.artifact_id, io.BytesIO(html.encode()))
            return
    report = run / ARTIFACTS / REPORT
    write_atomically(report, html.encode())
    upload_artifact(artifact_store=store, file_path=str(report), study_or_trial=study, mimetype="text/html")
    report.unlink()


def _study(storage: optuna.storages.BaseStorage, name: str) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise ReportError(
            f"a study named {name!r} is needed, the storage has none; give the search's --storage"
        ) from None


def artifact_store(run: Path) -> FileSystemArtifactStore:
    """Where artefacts of a run lie."""
    folder = run / ARTIFACTS
    folder.mkdir(exist_ok=True)
    return FileSystemArtifactStore(folder)


def server(url: str, *, host: str, port: int, run: Path | None = None) -> WSGIServer:
    """The dashboard on a storage, bound to its address and not serving yet; port 0: any free one.

    Raises:
        ReportError: the address cannot be used, or the extra is not installed.
        StudyError: the storage cannot be used.
    """
    dashboard = _dashboard()
    storage = open_storage(url)
    _tell_constraints(storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        application = dashboard.wsgi(storage, artifact_store=None if run is None else artifact_store(run))
    try:
        return make_server(host, port, application, server_class=_Server, handler_class=_Handler)
    except (OSError, OverflowError) as error:
        raise ReportError(
            f"the dashboard needs a free address, {host}:{port} is not ({error}); choose another --port"
        ) from None


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not told."""


def _tell_constraints(storage: optuna.storages.BaseStorage) -> None:
    """Let the storage give every trial's constraints also where the dashboard looks: else all would look feasible."""
    inner: Callable[..., Sequence[FrozenTrial]] = storage.get_all_trials

    def get_all_trials(*args: Any, **options: Any) -> Sequence[FrozenTrial]:
        trials = inner(*args, **options)
        for trial in trials:
            own = [value for key, value in trial.system_attrs.items() if key.startswith(_CONSTRAINT)]
            trial.system_attrs.setdefault(_CONSTRAINTS, own)
        return trials

    storage.get_all_trials = get_all_trials  # type: ignore[method-assign,assignment]


def _note(candidate: dict[str, Any]) -> str:
    """What is known of a candidate, as Markdown."""
    architecture = Architecture.from_dict(candidate["architecture"])
    told = f"predicted {candidate['predicted_ms']:.3g} ms ({candidate['low_ms']:.3g} to {candidate['high_ms']:.3g})"
    return f"**{candidate['fingerprint']}**, {told}\n\n```\n{architecture}\n```\n"


def _dashboard() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import optuna_dashboard
    except ImportError:
        raise ReportError("the dashboard needs the extra `dashboard`: pip install pocketnas[dashboard]") from None
    return optuna_dashboard

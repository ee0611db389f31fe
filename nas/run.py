"""A run: the folder that holds everything a long job made, so that the same command resumes it.

`run.json` says what was asked for. A second process cannot enter the folder while one is at work, and a command that asks for
something else is refused instead of mixed in.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import StudyError
from searchspace.files import write_atomically

FORMAT = 1
CHOICES = "choices.json"  # what was tried out once, for the whole run


@dataclass(frozen=True)
class Run:
    """A run's folder; `request` is what must stay the same when it is resumed, as plain data."""

    path: Path
    kind: str
    request: Mapping[str, Any]

    def file(self, name: str) -> Path:
        """Path of a file of this run."""
        return self.path / name

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write plain data into the run's folder."""
        write_atomically(self.file(name), (json.dumps(content, indent=2) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Plain data from the run's folder, None where the file is not there.

        Raises:
            StudyError: the file is damaged.
        """
        return _read_json(self.file(name))

    def once(self, name: str, choose: Callable[[], Any]) -> Any:
        """What `choose` gave the first time it was asked in this run, so that a resumed run does as the first one did."""
        choices = self.read_json(CHOICES) or {}
        if name not in choices:
            choices[name] = choose()
            self.write_json(CHOICES, choices)
        return choices[name]

    def withdraw(self, *made: str) -> None:
        """Free the folder for another request, this one being impossible; `made` are files that it left so far."""
        for name in ("run.json", CHOICES, *made):
            self.file(name).unlink(missing_ok=True)


@contextlib.contextmanager
def open_run(path: Path, *, kind: str, request: Mapping[str, Any]) -> Iterator[Run]:
    """The run in folder `path`, made if it is not there, held by this process inside the ``with``.

    Raises:
        StudyError: the folder holds another kind of run or one that asked for something else, is in use, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"{path}: a run needs a folder, it cannot be made ({error.strerror}); choose another --out"
        ) from None
    with (path / ".lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StudyError(
                f"{path}: process {lock.read() or 'unknown'} is at work in this run; wait for it or choose another --out"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        run = Run(path, kind, json.loads(json.dumps(request)))
        _match_or_write(run)
        yield run


def network_of(path: Path) -> Path:
    """The checkpoint of a finished run's network: a search's best, or the one that was trained, trimmed or compressed.

    Raises:
        StudyError: the folder is no run, or its run has no such network (yet).
    """
    result = result_of(path)
    best = result.get("best")
    told = best.get("checkpoint") if isinstance(best, dict) else result.get("checkpoint") or result.get("path")
    if not isinstance(told, str):
        raise StudyError(
            f"{path}: a network is needed, got a folder; that of a run stands for its network once the run has ended with one"
        )
    named = Path(told)
    for candidate in (path / named.parent.name / named.name, path / named.name):  # also where the run was moved since
        if candidate.exists():
            return candidate
    return named


def result_of(path: Path) -> dict[str, Any]:
    """What the run in a folder came to, as plain data; empty where it has not ended, or there is none.

    Raises:
        StudyError: the file is damaged.
    """
    return _read_json(path / "result.json") or {}


def _match_or_write(run: Run) -> None:
    known = run.read_json("run.json")
    asked = {"format": FORMAT, "kind": run.kind, "request": dict(run.request)}
    if known is None:
        run.write_json("run.json", asked)
        return
    if known.get("format") != FORMAT or known.get("kind") != run.kind:
        raise StudyError(
            f"{run.path}: holds a run of kind {known.get('kind')!r} and format {known.get('format')!r}, "
            f"a {run.kind!r} of format {FORMAT} is needed; choose another --out"
        )
    before = known["request"]
    for key in sorted(before.keys() | run.request.keys()):
        if before.get(key) != run.request.get(key):
            raise StudyError(
                f"{run.path}: was started with {key} {before.get(key)!r}, now {run.request.get(key)!r} is asked for; "
                "give the same again to resume it, or choose another --out"
            )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        content = json.loads(text)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise StudyError(f"{path}: is damaged (not a JSON object); remove it or choose another --out")
    return content

"""The frame around every command: errors as one line, exit codes, results on stdout, progress on stderr.

Exit codes: 0 done, 2 the user's input is wrong, 1 a defect of ours, 130 interrupted (what was done is kept).
"""

import errno
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from searchspace.errors import NasError

app = typer.Typer(
    name="nas",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

stdout = Console(soft_wrap=True, highlight=False)
stderr = Console(stderr=True, highlight=False)
INTERRUPTED = 130


def main() -> None:
    """Run the command line and leave with its exit code."""
    from nas.cli import commands  # noqa: F401  (registers every command with `app`)

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)  # an interruption inside a command is returned as its exit code, not raised
    except NasError as error:
        fail(str(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        fail(f"{error.filename or 'a file'}: cannot be written ({error.strerror}); what was finished before is kept")
    except Exception as error:
        if _is_usage_error(error):
            fail(f"{error.format_message() or 'a command is needed'} (see `nas --help`)")  # type: ignore[attr-defined]
        raise
    if code == INTERRUPTED:
        stderr.print("interrupted: what was done is kept; the same command goes on from there", style="yellow")
    raise SystemExit(code)


def fail(message: str) -> None:
    """Leave with exit code 2 and one line on stderr that says what must hold, what was got and what to do."""
    stderr.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    raise SystemExit(2)


def show_json(result: Mapping[str, Any]) -> None:
    """The result for machines: one JSON object on stdout; a number that JSON cannot say (infinity, not a number) is null."""
    plain = json.loads(json.dumps(result, default=_plain), parse_constant=lambda _: None)
    sys.stdout.write(json.dumps(plain, allow_nan=False) + "\n")
    sys.stdout.flush()  # a command that goes on serving is waited for at the other end of a pipe


def note(message: str) -> None:
    """A remark for people, on stderr."""
    stderr.print(escape(message), style="dim", soft_wrap=True)


@contextmanager
def progress_bar(description: str) -> Iterator["Bar"]:
    """A progress bar on stderr: what, how far, how long, how much longer."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # where nobody watches, it would leave empty lines only
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        yield Bar(progress, description)


class Bar:
    """Takes the `(what, done, total)` events of the library and moves a progress bar with them."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None)
        self._total: int | None = None

    def __call__(self, what: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` are finished; total None: how many is not known."""
        if total != self._total:  # another piece of work: its time starts now
            self._progress.reset(self._task)
            self._total = total
        self._progress.update(self._task, description=escape(what), completed=done, total=total)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _is_usage_error(error: Exception) -> bool:
    """Whether the command-line parser refused what was typed."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return value.item()  # a numpy scalar
    raise TypeError(f"{type(value).__name__} is not plain data")

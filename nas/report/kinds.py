"""Which report a run gets: one for each kind of run, and two runs compared."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nas.errors import ReportError
from nas.report.comparison import comparison_section
from nas.report.content import Page
from nas.report.reading import Folder, open_folder
from nas.report.searches import search_page
from nas.report.trainings import training_page
from nas.report.trimmings import trimming_page

KINDS: dict[str, Callable[[Folder], Page]] = {"search": search_page, "netadapt": trimming_page, "train": training_page}


def page_of(run: Path, other: Path | None = None) -> Page:
    """The report of a run; with `other`, both compared as well.

    Raises:
        ReportError: a folder is not that of a run, or of a kind that has no report.
    """
    folder, kind = open_folder(run)
    if kind not in KINDS:
        raise ReportError(f"{run}: a run of kind {', '.join(KINDS)} is needed, got {kind!r}")
    page = KINDS[kind](folder)
    if other is None:
        return page
    second, _ = open_folder(other)
    section = comparison_section(folder, second)
    return replace(page, sections=(*page.sections[:1], section, *page.sections[1:]))

"""Which report a run gets: one for each kind of run, and two runs compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nas.errors import ReportError
from nas.report.comparison import Compared, comparison_section
from nas.report.compressions import compression_page, compression_points
from nas.report.content import Drawing, Page, Point
from nas.report.reading import Folder, Json, open_folder
from nas.report.searches import search_page, search_points
from nas.report.trainings import training_curve, training_page, training_points
from nas.report.trimmings import trimming_page, trimming_points


@dataclass(frozen=True)
class Kind:
    """What is made of a kind of run: its page, the networks it came to, and its learning curve if it trains one network."""

    page: Callable[[Folder], Page]
    points: Callable[[Folder], list[Point]]
    curve: Callable[[Folder], list[Json]] = lambda folder: []

    def compared(self, folder: Folder) -> Compared:
        """A run of this kind, for a comparison."""
        return Compared(
            folder,
            folder.part("Networks", lambda: self.points(folder)) or [],
            folder.part("Learning curve", lambda: self.curve(folder)) or [],
        )


KINDS = {
    "search": Kind(search_page, search_points),
    "netadapt": Kind(trimming_page, trimming_points),
    "train": Kind(training_page, training_points, training_curve),
    "compress": Kind(compression_page, compression_points),
}


def page_of(run: Path, other: Path | None = None, *, storage: str | None = None) -> Page:
    """The report of a run; with `other`, both compared as well.

    Args:
        run: its folder.
        other: another run's.
        storage: Optuna storage URL of studies that do not lie in their run's folder.

    Raises:
        ReportError: a folder is not that of a run, or of a kind that has no report.
    """
    folder, kind = _opened(run, storage)
    page = kind.page(folder)
    if other is None:
        return page
    second, its = _opened(other, storage)
    networks = _of_both(page.networks, run, its.page(second).networks, other)
    section = comparison_section(kind.compared(folder), its.compared(second))
    told = [f"{other}: {remark}" for remark in second.remarks]
    return replace(
        page,
        remarks=(*folder.remarks, *told),
        sections=(*page.sections[:1], section, *page.sections[1:]),
        networks=networks,
    )


def _of_both(first: Sequence[Drawing], run: Path, second: Sequence[Drawing], other: Path) -> tuple[Drawing, ...]:
    """The networks of two runs, each saying whose it is; one that both have is drawn once."""
    owners = {drawn.fingerprint: str(run) for drawn in first}
    for drawn in second:
        owners[drawn.fingerprint] = f"{run}, {other}" if drawn.fingerprint in owners else str(other)
    drawings = {drawn.fingerprint: drawn for drawn in (*second, *first)}
    return tuple(
        replace(drawings[fingerprint], facts=(("run", owner), *drawings[fingerprint].facts))
        for fingerprint, owner in owners.items()
    )


def _opened(run: Path, storage: str | None) -> tuple[Folder, Kind]:
    folder, kind = open_folder(run, storage)
    if kind not in KINDS:
        raise ReportError(f"{run}: a run of kind {', '.join(KINDS)} is needed, got {kind!r}")
    return folder, KINDS[kind]

"""What a report is made of, as plain values; `nas.report.page` turns them into HTML."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        name: for its file and its place in the page: lower-case letters and hyphens.
        title: what it shows, in a few words.
        alternative: the same in a sentence, for those who do not see it.
        spec: Vega-Lite specification, with the data inside.
    """

    name: str
    title: str
    alternative: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A table's cell; with `network` (a fingerprint) it links to where that one is drawn."""

    text: str
    network: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows under headings; every row has as many cells as there are headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @staticmethod
    def of(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> "Table":
        """A table of texts."""
        return Table(headings, tuple(tuple(Cell(text) for text in row) for row in rows))


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, and what there is of a text, a figure and a table."""

    heading: str
    text: str = ""
    figure: Figure | None = None
    table: Table | None = None


@dataclass(frozen=True)
class Point:
    """A network that a run came to, for a comparison with another run.

    Attributes:
        network: its fingerprint.
        which: what it is in its run.
        ms: milliseconds on the target, measured or else predicted; None where the run has no target.
        accuracy: on the validation split, in [0, 1].
    """

    network: str
    which: str
    ms: float | None
    accuracy: float


@dataclass(frozen=True)
class Part:
    """A block or the head of a drawn network: what comes in, what is done, what it takes (None: not known)."""

    place: str
    shape: str
    operator: str
    hidden: str
    out: str
    extras: str
    ms: float | None


@dataclass(frozen=True)
class Drawing:
    """A network stage by stage; `facts` are pairs of what and how much."""

    fingerprint: str
    title: str
    facts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]

    @property
    def longest_ms(self) -> float:
        """Of the parts whose milliseconds are known; 0 where none are."""
        return max((part.ms for part in self.parts if part.ms is not None), default=0.0)


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: what run it is of.
        facts: pairs of what and how much, the main result first.
        remarks: what is missing, damaged or to be known.
        sections: in the order in which they are read.
        networks: drawn stage by stage at the end.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    sections: tuple[Section, ...]
    networks: tuple[Drawing, ...]

    @property
    def figures(self) -> list[Figure]:
        """Every figure of the page."""
        return [section.figure for section in self.sections if section.figure is not None]

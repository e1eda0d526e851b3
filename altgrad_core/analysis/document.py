"""A report's content, free of any markup: the renderers for Markdown and HTML share it.

Every string is plain text; a renderer escapes it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

Tone = Literal["plain", "bad", "quiet"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table. ``href`` is a relative address, or begins with http(s)://."""

    text: str
    href: str | None = None
    tone: Tone = "plain"

    @property
    def address(self) -> str | None:
        """``href`` as a page writes it: quoted, but for what makes it an address elsewhere."""
        if self.href is None:
            return None
        elsewhere = self.href.startswith(("https://", "http://"))
        return quote(self.href, safe="/:%" if elsewhere else "/")


@dataclass(frozen=True)
class Column:
    """A table column; numbers are aligned right, and never broken over lines."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table with as many cells in each row as there are columns."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        wrong = [row for row in self.rows if len(row) != len(self.columns)]
        if wrong:
            raise ValueError(f"{len(self.columns)} columns, but a row of {len(wrong[0])} cells")


@dataclass(frozen=True)
class Paragraph:
    """Running text; ``lead`` is the one that a hurried reader reads."""

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """A command to type."""

    text: str


@dataclass(frozen=True)
class Figure:
    """A picture in two shapes: ``panels`` flow with the page's width, ``whole`` has all in one.

    Both are SVG; ``name`` is the stem of the image's file.
    """

    name: str
    caption: str
    panels: tuple[str, ...]
    whole: str


@dataclass(frozen=True)
class HeatMap:
    """Values in cells of rows × columns, with the number written in each; NaN is an empty cell.

    ``diverging``: colours are centred on 0 (differences), else they run from least to most.
    ``texts`` are what is written in the cells, as many as ``values``.
    """

    name: str
    caption: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    diverging: bool = False


@dataclass(frozen=True)
class ParallelCoordinates:
    """A line per condition through one axis per property.

    ``axes``: title of each axis; a categorical axis has only texts in its column. ``lines``: label,
    group (its colour) and the value of each axis: a number (NaN: not measured) or a text.
    """

    name: str
    caption: str
    axes: tuple[str, ...]
    lines: tuple[tuple[str, str, tuple[float | str, ...]], ...]


Block = Table | Paragraph | Bullets | Code | Figure | HeatMap | ParallelCoordinates


@dataclass
class Section:
    """A headed part of the report."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The title as a fragment: lower case, hyphens for spaces."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass
class Document:
    """A report: its title, what stands under it, and its sections."""

    title: str
    opening: list[Block]
    sections: list[Section]


def cells(*texts: str) -> tuple[Cell, ...]:
    """A row of plain cells."""
    return tuple(Cell(text) for text in texts)


def columns(*titles: str, numbers: Collection[str] = ()) -> tuple[Column, ...]:
    """Columns by title; those whose title is in ``numbers`` hold numbers."""
    return tuple(Column(title, title in numbers) for title in titles)

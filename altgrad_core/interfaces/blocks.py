"""What a section of a report is made of: content without markup.

Every string is plain text; the renderers (Markdown, HTML, terminal) escape it. A section never
writes markup of its own, but for `backticks` around what is to be set as code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Tone = Literal["plain", "bad", "quiet"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    ``href`` leads to where the number comes from: the path of a run directory or of a file, absolute
    or relative to the current folder, or an address that begins with http(s)://. Renderers make paths
    relative to the report.
    """

    text: str
    href: str | None = None
    tone: Tone = "plain"


@dataclass(frozen=True)
class Column:
    """A table column; numbers are aligned right, and never broken over lines."""

    title: str
    numeric: bool = False
    meaning: str = ""
    """What it shows, where the title does not tell: ``Std: over seeds.`` stands below the table."""


@dataclass(frozen=True)
class Table:
    """A table with as many cells in each row as there are columns. Renderers drop empty columns, and
    do not say what these mean.

    Raises:
        ValueError: For a row of another length.
    """

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
class Chart:
    """A picture: a Vega-Lite specification with its data inline.

    name:
        the stem of its file, which no other chart of the report has.
    spec:
        Vega-Lite as JSON data, e.g. of ``altair.Chart.to_dict()``; see
        :mod:`altgrad_core.report.charts` for the usual ones and their theme.
    """

    name: str
    caption: str
    spec: Mapping[str, Any]


Block = Table | Paragraph | Bullets | Code | Chart


Shown = str | Callable[[Mapping[Any, Any]], str | Cell]
"""What stands in a column of :func:`table`: the value of that name, or what is made of the row."""


def table(
    rows: Iterable[Mapping[Any, Any]] | pd.DataFrame,
    made: Iterable[tuple[str, Shown] | tuple[str, Shown, str]],
    caption: str = "",
    *,
    words: Collection[str] = (),
) -> Table:
    """A table with a row for each mapping, or of a frame; its columns are titles with what they show,
    and with their meaning where it has to be told.

    The first column and those whose title is in ``words`` hold words, all others numbers.
    """
    known = list(made)
    records = rows.to_dict("records") if hasattr(rows, "to_dict") else rows
    head = tuple(
        Column(title, place > 0 and title not in words, *meaning)
        for place, (title, _, *meaning) in enumerate(known)
    )
    cells = (tuple(_cell(row, shown) for _, shown, *_ in known) for row in records)
    return Table(head, tuple(cells), caption)


def _cell(row: Mapping[Any, Any], shown: Shown) -> Cell:
    value = str(row[shown]) if isinstance(shown, str) else shown(row)
    return value if isinstance(value, Cell) else Cell(value)

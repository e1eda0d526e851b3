"""A report's content: a title, what stands under it, and its parts, all free of markup."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from altgrad_core.analysis.words import NONE
from altgrad_core.interfaces.blocks import Block, Chart, Table


@dataclass(frozen=True)
class Part:
    """A headed part of a document."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        """The title as a fragment: lower case, hyphens for spaces."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Document:
    """A report: its title, what stands under it, and its parts."""

    title: str
    opening: tuple[Block, ...]
    parts: tuple[Part, ...]

    @property
    def charts(self) -> Iterator[Chart]:
        """Every chart, in order."""
        for blocks in (self.opening, *(part.blocks for part in self.parts)):
            yield from (block for block in blocks if isinstance(block, Chart))


def to_show(table: Table) -> Table:
    """The table without the columns, but for the first, that say nothing in any row; its caption says
    what the others mean.
    """
    kept = [
        place
        for place in range(len(table.columns))
        if place == 0
        or not table.rows
        or any(row[place].text.strip() not in ("", NONE) for row in table.rows)
    ]
    columns = [table.columns[place] for place in kept]
    told = (f"{column.title}: {column.meaning}" for column in columns if column.meaning)
    return Table(
        columns=tuple(replace(column, meaning="") for column in columns),
        rows=tuple(tuple(row[place] for place in kept) for row in table.rows),
        caption=" ".join(filter(None, (table.caption, *told))),
    )

"""Tables as HTML: they scroll inside their own region, never the page."""

from __future__ import annotations

import re
from html import escape

from altgrad_core.analysis.document import Cell, Table

_LONG = 20
"""Characters of a row's name that are kept on one line on every screen."""
_SHORT = 16
"""Characters of a cell that is never broken over lines."""
_UNDERSCORE = re.compile(r"_(?![^<]*>)")  # in the text, not in a tag


def table_html(table: Table) -> str:
    """A table in a region that scrolls, with its caption below."""
    head = "".join(
        f'<th scope="col"{numeric_class(column.numeric)}>{escape(column.title)}</th>'
        for column in table.columns
    )
    rows = "\n".join(f"<tr>{_cells(table, row)}</tr>" for row in table.rows)
    note = f'\n<p class="note">{escape(table.caption)}</p>' if table.caption else ""
    return scrolling(f"table of {_described(table)}", table_element(head, rows)) + note


def scrolling(label: str, content: str) -> str:
    """A region that scrolls sideways by itself, with keys too; ``label`` is what it is called."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">\n'
        f"{content}\n</div>"
    )


def table_element(head: str, rows: str, attributes: str = "") -> str:
    """The table itself, from its header cells and its rows as HTML."""
    return (
        f"<table{attributes}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    )


def cell_content(cell: Cell) -> str:
    """The content of a cell: escaped, linked and toned."""
    text = escape(cell.text)
    if cell.address is not None:
        text = f'<a href="{escape(cell.address)}" rel="noreferrer">{text}</a>'
    return text if cell.tone == "plain" else f'<span class="{cell.tone}">{text}</span>'


def _described(table: Table) -> str:
    """What a screen reader calls the region: its first columns."""
    titles = [column.title for column in table.columns if column.title]
    return ", ".join(titles[:3])


def _cells(table: Table, row: tuple[Cell, ...]) -> str:
    first, *rest = zip(row, table.columns, strict=True)
    return row_header(first[0], first[1].numeric) + "".join(
        f"<td{_kind(cell, column.numeric)}>{cell_content(cell)}</td>" for cell, column in rest
    )


def _kind(cell: Cell, numeric: bool) -> str:
    return ' class="text"' if not numeric and len(cell.text) > _SHORT else numeric_class(numeric)


def row_header(cell: Cell, numeric: bool = False) -> str:
    """The first cell of a row, which names it; a long name may be broken where there is no room."""
    content, kind = cell_content(cell), numeric_class(numeric)
    if len(cell.text) > _LONG:
        content, kind = _UNDERSCORE.sub("_<wbr>", content), ' class="long"'
    return f'<th scope="row"{kind}>{content}</th>'


def numeric_class(numeric: bool) -> str:
    """The attribute of a cell that holds a number."""
    return ' class="number"' if numeric else ""

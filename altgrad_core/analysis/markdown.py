"""A report's document as Markdown (GitHub's dialect), with its figures as files beside it."""

from __future__ import annotations

from collections.abc import Iterable

from altgrad_core.analysis.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Document,
    Figure,
    HeatMap,
    Paragraph,
    ParallelCoordinates,
    Table,
)
from altgrad_core.analysis.heat import heat_table
from altgrad_core.analysis.parallel import draw_parallel

FIGURES = "figures"
"""Folder of the image files, beside the Markdown file."""

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_[]|~#$"})
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def render_markdown(document: Document) -> str:
    """The whole report as Markdown text."""
    parts = [f"# {escape(document.title)}", *map(_block, document.opening)]
    for section in document.sections:
        parts += [f"## {escape(section.title)}", *map(_block, section.blocks)]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return " ".join(text.split()).translate(_SPECIAL).translate(_HTML)


def figures_of(block: Block) -> tuple[tuple[str, str], ...]:
    """The pictures that ``block`` needs beside the Markdown: the stem of each file, and its SVG."""
    match block:
        case Figure(name=name, whole=whole):
            return ((name, whole),)
        case ParallelCoordinates(name=name):
            return ((name, draw_parallel(block)),)
        case _:
            return ()


def _block(block: Block) -> str:
    match block:
        case Paragraph(text=text):
            return escape(text)
        case Bullets(items=items):
            return "\n".join(f"- {escape(item)}" for item in items)
        case Code(text=text):
            return _fenced(text)
        case Figure(name=name, caption=caption) | ParallelCoordinates(name=name, caption=caption):
            alt = caption.partition(".")[0]
            return f"![{escape(alt)}]({FIGURES}/{name}.svg)\n\n{escape(caption)}"
        case HeatMap():
            return _table(heat_table(block))
        case Table():
            return _table(block)


def _fenced(text: str) -> str:
    """A fenced block; the fence is longer than any run of backticks inside."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}sh\n{text}\n{fence}"


def _table(table: Table) -> str:
    head = _row(escape(column.title) for column in table.columns)
    rule = _row("--:" if column.numeric else ":--" for column in table.columns)
    rows = [_row(_cell(cell) for cell in row) for row in table.rows]
    lines = "\n".join([head, rule, *rows])
    return f"{lines}\n\n{escape(table.caption)}" if table.caption else lines


def _row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.tone == "bad":
        text = f"**{text}**"
    return text if cell.address is None else f"[{text}]({cell.address})"

"""A report's document as one HTML page that needs nothing else: styles and figures inline."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from altgrad_core.analysis.document import (
    Block,
    Bullets,
    Cell,
    Code,
    Document,
    Figure,
    Paragraph,
    Section,
    Table,
)

_HERE = Path(__file__).parent
_REFERENCE = re.compile(r'(\bid="|href="#|url\(#)')


def render_html(document: Document) -> str:
    """The whole page. Everything that came from a file or a user is escaped."""
    template = Template((_HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(document.title),
        style=(_HERE / "report.css").read_text(encoding="utf-8"),
        contents="\n".join(_contents(section) for section in document.sections),
        opening="\n".join(map(_block, document.opening)),
        sections="\n".join(map(_section, document.sections)),
    )


def _contents(section: Section) -> str:
    return f'<li><a href="#{escape(section.anchor)}">{escape(section.title)}</a></li>'


def _section(section: Section) -> str:
    body = "\n".join(map(_block, section.blocks))
    anchor = escape(section.anchor)
    return (
        f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(section.title)}</h2>\n'
        f"{body}\n</section>"
    )


def _block(block: Block) -> str:
    match block:
        case Paragraph(text=text, lead=lead):
            return f'<p class="lead">{escape(text)}</p>' if lead else f"<p>{escape(text)}</p>"
        case Bullets(items=items):
            return f"<ul>\n{_joined('li', items)}\n</ul>"
        case Code(text=text):
            return f'<pre tabindex="0"><code>{escape(text)}</code></pre>'
        case Figure():
            return _figure(block)
        case Table():
            return _table(block)


def _joined(tag: str, items: Iterable[str]) -> str:
    return "\n".join(f"<{tag}>{escape(item)}</{tag}>" for item in items)


def _figure(figure: Figure) -> str:
    """Panels side by side, as many as fit. Ids are made unique, as they must be in a page."""
    panels = "\n".join(
        _REFERENCE.sub(rf"\g<1>{figure.name}-{number}-", panel)
        for number, panel in enumerate(figure.panels)
    )
    return (
        f'<figure class="{escape(figure.name)}">\n<div class="panels">\n{panels}\n</div>\n'
        f"<figcaption>{escape(figure.caption)}</figcaption>\n</figure>"
    )


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col"{_numeric(column.numeric)}>{escape(column.title)}</th>'
        for column in table.columns
    )
    rows = "\n".join(f"<tr>{_cells(table, row)}</tr>" for row in table.rows)
    note = f'\n<p class="note">{escape(table.caption)}</p>' if table.caption else ""
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="table">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>{note}"
    )


def _cells(table: Table, row: tuple[Cell, ...]) -> str:
    first, *rest = (
        (_content(cell), _numeric(column.numeric))
        for cell, column in zip(row, table.columns, strict=True)
    )
    return f'<th scope="row"{first[1]}>{first[0]}</th>' + "".join(
        f"<td{attribute}>{content}</td>" for content, attribute in rest
    )


def _numeric(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _content(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.href is not None:
        text = f'<a href="{escape(quote(cell.href))}">{text}</a>'
    return text if cell.tone == "plain" else f'<span class="{cell.tone}">{text}</span>'

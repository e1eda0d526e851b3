"""Findings and sections -> a document -> the files of a report.

The verdict comes first, then each section in the order of its offer. A section that raises is named in
its place, with its error, and stops nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from altgrad_core._files import sweep, write_text
from altgrad_core.analysis.find import find
from altgrad_core.analysis.formats import format_table
from altgrad_core.errors import UserError
from altgrad_core.interfaces.blocks import Block, Bullets, Chart, Paragraph
from altgrad_core.interfaces.section import Findings, Section
from altgrad_core.registry.catalog import Catalog, catalog
from altgrad_core.registry.discovery import Registered
from altgrad_core.registry.problems import unknown
from altgrad_core.report.document import Document, Part
from altgrad_core.report.pictures import to_svg
from altgrad_core.report.render import FIGURES, render_html, render_markdown
from altgrad_core.results.collect import write_table
from altgrad_core.results.stored import StoredSuite

TABLES = ("effects", "pairs", "conditions", "companions", "twins", "tuning")
"""The tables that a report writes as CSV, to open anywhere; all that hold rows are parquet as well."""
_MORE = ("runs", "layers", "events", "curves", "formats")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ReportFiles:
    """What :func:`write_report` wrote."""

    markdown: Path
    html: Path


def build_document(
    found: Findings, questions: Sequence[str] | None = None, plugins: Catalog | None = None
) -> Document:
    """The report. ``questions`` selects sections by name or short name (``benefit``, ``q3``), in the
    report's order; those that every report needs are there in any case. Raises ``UserError`` for a
    name that there is not.
    """
    known = plugins or catalog()
    parts, seen = [], set[str]()
    for registered, chosen in _chosen(known, questions):
        part = _part(known, registered, found, seen, chosen=chosen)
        if part is not None:
            parts.append(part)
    return Document(f"{found.suite}: report", _opening(found), tuple(parts))


def watched(suite: StoredSuite) -> Document:
    """The report of a suite that is being watched: estimates alone, without any test."""
    return build_document(find(suite, format_table(suite), live=True))


def write_report(
    found: Findings,
    folder: Path,
    questions: Sequence[str] | None = None,
    plugins: Catalog | None = None,
) -> ReportFiles:
    """Write ``report.md``, ``report.html``, ``figures/`` and the tables into ``folder``.

    Raises ``UserError`` for an unknown question, and where the disk refuses a file.
    """
    document, pictures = drawn(build_document(found, questions, plugins))
    try:
        write_document(document, folder, "report", pictures)
        _write_tables(found, folder)
    except OSError as error:
        raise UserError(f"The report cannot be written to {folder}: {error.strerror}.") from error
    return ReportFiles(folder / "report.md", folder / "report.html")


def drawn(document: Document) -> tuple[Document, dict[str, str]]:
    """The document's charts as SVG by name; one that cannot be drawn becomes a sentence that says so."""
    pictures: dict[str, str] = {}

    def draw(block: Block) -> Block:
        if isinstance(block, Chart):
            try:
                pictures[block.name] = to_svg(block)
            except ValueError as error:
                return Paragraph(f"The chart {block.name} could not be drawn: {error}")
        return block

    parts = [Part(part.title, tuple(map(draw, part.blocks))) for part in document.parts]
    return replace(document, parts=tuple(parts)), pictures


def write_document(
    document: Document, folder: Path, stem: str, pictures: Mapping[str, str] | None = None
) -> None:
    """Write ``STEM.md``, ``STEM.html`` and the pictures. Raises ``OSError``."""
    (folder / FIGURES if pictures else folder).mkdir(parents=True, exist_ok=True)
    sweep(folder)
    sweep(folder / FIGURES)
    for name, svg in (pictures or {}).items():
        write_text(folder / FIGURES / f"{name}.svg", svg)
    write_text(folder / f"{stem}.md", render_markdown(document, folder))
    write_text(folder / f"{stem}.html", render_html(document, folder, pictures))


def sections(plugins: Catalog) -> list[Registered]:
    """The sections that are installed, in the report's order."""
    offers = plugins.offers("section").values()
    return sorted(offers, key=lambda one: (one.offer.order, one.offer.name))


def _chosen(plugins: Catalog, questions: Iterable[str] | None) -> Iterable[tuple[Registered, bool]]:
    """Every section, and whether it was asked for."""
    known = sections(plugins)
    names = {one.offer.name: one.offer.name for one in known}
    names |= {one.offer.label: one.offer.name for one in known if one.offer.label}
    asked = set[str]()
    for given in questions or ():
        name = names.get(given.strip().casefold())
        if name is None:
            raise UserError(unknown("question", given, names))
        asked.add(name)
    return [(one, questions is None or one.offer.name in asked) for one in known]


def _opening(found: Findings) -> tuple[Block, ...]:
    lead = 2 if found.exploratory else 1  # that it is exploratory, and the answer
    blocks: list[Block] = [Paragraph(" ".join(found.verdict[:lead]), lead=True)]
    rest = found.verdict[lead:]
    blocks += [Bullets(rest)] if rest else []
    blocks += [Paragraph(found.description)] if found.description else []
    blocks += [Bullets(found.notes)] if found.notes else []
    return tuple(blocks)


def _part(
    plugins: Catalog, registered: Registered, found: Findings, seen: set[str], *, chosen: bool
) -> Part | None:
    """What a section makes of the findings; None where it has nothing to say."""
    name, title, wanted = registered.offer.name, registered.offer.summary, chosen
    try:
        section: Section = plugins.build("section", name)
        wanted = chosen or section.always
        if not wanted:
            return None
        title = section.title
        blocks = tuple(section.build(found))
        for chart in (block for block in blocks if isinstance(block, Chart)):
            _check(chart, seen)
    except Exception as error:  # a stranger's section may do anything
        if not wanted:
            return None
        said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        blocks = (Paragraph(f"The section {name} of {registered.origin} failed: {said}"),)
    return Part(title, blocks) if blocks else None


def _check(chart: Chart, seen: set[str]) -> None:
    """Raise for a chart whose file another would overwrite, or that has no file name."""
    if not _NAME.fullmatch(chart.name) or chart.name in seen:
        raise ValueError(f"a chart is called {chart.name!r}, which is another's or no file name")
    seen.add(chart.name)


def _write_tables(found: Findings, folder: Path) -> None:
    """Write the tables that hold rows."""
    for name in (*TABLES, *_MORE):
        table = getattr(found, name)
        if len(table) and name in TABLES:
            write_text(folder / f"{name}.csv", table.to_csv(index=False))
        if len(table):
            whole = table.reset_index() if table.index.name else table
            write_table(whole, folder / f"{name}.parquet")

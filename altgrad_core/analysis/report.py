"""Run directories -> report: Markdown with figures, an HTML page, and the tables behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from altgrad_core._files import write_text
from altgrad_core.analysis.document import Document, Figure
from altgrad_core.analysis.findings import find
from altgrad_core.analysis.html import render_html
from altgrad_core.analysis.markdown import FIGURES, render_markdown
from altgrad_core.analysis.sections import build_document
from altgrad_core.analysis.svg import standalone
from altgrad_core.errors import UserError
from altgrad_core.results.collect import write_table
from altgrad_core.results.stored import read_suite


@dataclass(frozen=True)
class ReportFiles:
    """What :func:`write_report` wrote."""

    markdown: Path
    html: Path
    csv: Path
    """The main table, not rounded: one row per condition."""
    parquet: Path
    """One row per run, as ``load_results`` gives it."""
    figures: tuple[Path, ...] = ()


def write_report(
    runs_dir: Path, out_dir: Path | None = None, same_grid: Sequence[tuple[str, str]] = ()
) -> ReportFiles:
    """Write the report of the suite in ``runs_dir`` to ``out_dir`` (default: ``runs_dir/report``).

    An incomplete suite has a report too, which says what is missing. ``same_grid`` names the pairs
    of formats with equal grids, see :func:`altgrad_core.analysis.grids.equal_grids`. Raises
    ``UserError`` where there are no results, several suites, damaged files, or no room to write.
    """
    suite = read_suite(Path(runs_dir))
    folder = Path(out_dir) if out_dir is not None else suite.path / "report"
    found = find(suite, same_grid)
    document = build_document(found, folder)
    try:
        figures = _write_figures(document, folder / FIGURES)
        files = ReportFiles(
            markdown=folder / "report.md",
            html=folder / "report.html",
            csv=folder / "conditions.csv",
            parquet=folder / "runs.parquet",
            figures=figures,
        )
        write_text(files.markdown, render_markdown(document))
        write_text(files.html, render_html(document))
        write_text(files.csv, found.conditions.to_csv(index=False))
    except OSError as error:
        raise UserError(f"The report cannot be written to {folder}: {error.strerror}.") from error
    write_table(found.results, files.parquet)
    return files


def _write_figures(document: Document, folder: Path) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    blocks = [block for section in document.sections for block in section.blocks]
    written = []
    for block in blocks:
        if isinstance(block, Figure):
            written.append(folder / f"{block.name}.svg")
            write_text(written[-1], standalone(block.whole))
    return tuple(written)

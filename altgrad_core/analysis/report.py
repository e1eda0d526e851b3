"""Run directories -> report: Markdown with figures, an HTML page, and the tables behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from altgrad_core._files import write_text
from altgrad_core.analysis.document import Document
from altgrad_core.analysis.findings import Findings, find
from altgrad_core.analysis.format_numbers import FormatNumbers, numbers_of
from altgrad_core.analysis.grids import formats_of, same_grid_pairs
from altgrad_core.analysis.html import render_html
from altgrad_core.analysis.markdown import FIGURES, figures_of, render_markdown
from altgrad_core.analysis.sections import build_document
from altgrad_core.analysis.svg import standalone
from altgrad_core.errors import UserError
from altgrad_core.results.collect import write_table
from altgrad_core.results.sources import Results, read_one


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


def report_of(
    sources: Results, out_dir: Path | None = None, questions: Sequence[str] | None = None
) -> tuple[Findings, ReportFiles]:
    """Read the results, build their formats, write the report; imports torch for the formats.

    Raises as :func:`write_report`, and where a question is not known.
    """
    suite = read_one(sources)
    formats = formats_of([suite])
    found = find(suite, same_grid_pairs(formats), numbers_of(formats))
    return found, _write(found, out_dir, questions)


def write_report(
    runs_dir: Results,
    out_dir: Path | None = None,
    same_grid: Sequence[tuple[str, str]] = (),
    formats: Mapping[str, FormatNumbers] | None = None,
    questions: Sequence[str] | None = None,
) -> ReportFiles:
    """Write the report of the suite in ``runs_dir`` to ``out_dir`` (default: ``runs_dir/report``).

    Instead of a folder, ``runs_dir`` may be a W&B project, several sources of one suite, or a suite
    that was read already, see :mod:`altgrad_core.results.sources`.

    An incomplete suite has a report too, which says what is missing. ``same_grid`` names the pairs
    of formats with equal grids and ``formats`` are the formats' numbers; :func:`report_of` works
    both out. ``questions`` selects sections, see
    :func:`~altgrad_core.analysis.sections.build_document`. Raises ``UserError`` where there are no
    results, several suites, damaged files, an unknown question, or no room to write.
    """
    return _write(find(read_one(runs_dir), same_grid, formats), out_dir, questions)


def _write(found: Findings, out_dir: Path | None, questions: Sequence[str] | None) -> ReportFiles:
    folder = Path(out_dir) if out_dir is not None else found.suite.path / "report"
    document = build_document(found, folder, questions)
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
    written = []
    for section in document.sections:
        for name, svg in (figure for block in section.blocks for figure in figures_of(block)):
            written.append(folder / f"{name}.svg")
            write_text(written[-1], standalone(svg))
    return tuple(written)

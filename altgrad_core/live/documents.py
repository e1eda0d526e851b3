"""What a live page shows: the report of the suite as it is now, and the files of one run."""

from __future__ import annotations

from pathlib import Path

from altgrad_core.analysis.document import Cell, Document, Paragraph, Section, Table, columns
from altgrad_core.analysis.findings import find
from altgrad_core.analysis.format_numbers import FormatNumbers, numbers_of
from altgrad_core.analysis.grids import formats_of, same_grid_pairs
from altgrad_core.analysis.sections import build_document
from altgrad_core.results.stored import StoredSuite

READABLE = (
    "spec.yaml",
    "environment.json",
    "status.json",
    "facts.json",
    "metrics.jsonl",
    "log.txt",
)
"""The files of a run that are shown, all of them text."""


class ReportMaker:
    """Makes a suite's report. The formats are built once for each set of runs."""

    def __init__(self) -> None:
        self._runs: frozenset[str] = frozenset()
        self._same_grid: tuple[tuple[str, str], ...] = ()
        self._numbers: dict[str, FormatNumbers] = {}

    def __call__(self, suite: StoredSuite) -> Document:
        """The report, with links to run directories relative to the suite's folder."""
        runs = frozenset(run.spec.id for run in suite.runs)
        if runs != self._runs:
            formats = formats_of([suite])
            self._runs, self._same_grid = runs, same_grid_pairs(formats)
            self._numbers = numbers_of(formats)
        return build_document(find(suite, self._same_grid, self._numbers), suite.path)


def run_document(directory: Path) -> Document:
    """The list of a run's readable files."""
    files = [directory / name for name in READABLE if is_readable(directory / name)]
    rows = tuple(
        (Cell(file.name, href=file.name), Cell(f"{file.stat().st_size:,}")) for file in files
    )
    text = Paragraph("These files are the record of one run, as they are now.")
    table = Table(columns("File", "Bytes", numbers=("Bytes",)), rows)
    return Document(f"Run {directory.name}", [text], [Section("Files", [table])])


def is_readable(file: Path) -> bool:
    """Whether ``file`` is one of ``READABLE``, and itself a file of the run: no link to elsewhere."""
    inside = not file.is_symlink() and not file.parent.is_symlink()
    return file.name in READABLE and inside and file.is_file()

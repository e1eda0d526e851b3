"""The report of a suite that is being watched: estimates alone."""

from __future__ import annotations

import pandas as pd

from altgrad_core.analysis.find import find
from altgrad_core.analysis.formats import format_table
from altgrad_core.report.build import build_document
from altgrad_core.report.document import Document
from altgrad_core.results.stored import StoredSuite


class ReportMaker:
    """Makes a suite's report. The formats are built once for each set of runs."""

    def __init__(self) -> None:
        self._runs: frozenset[str] = frozenset()
        self._formats: pd.DataFrame | None = None

    def __call__(self, suite: StoredSuite) -> Document:
        """The report, without any test."""
        runs = frozenset(run.spec.id for run in suite.runs)
        if self._formats is None or runs != self._runs:
            self._runs, self._formats = runs, format_table([suite])
        return build_document(find(suite, self._formats, live=True))

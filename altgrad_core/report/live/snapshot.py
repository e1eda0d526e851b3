"""The pages of a running suite, made anew only when its results have changed.

Making the report costs seconds of a core that the runs could use. So it is made on request alone,
only if something it shows has changed, and not before four times what the last making took has
passed: a page that is being watched takes at most a fifth of one core. Runs that have not changed are
not read again.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from altgrad_core.errors import UserError
from altgrad_core.interfaces.blocks import Paragraph
from altgrad_core.report.document import Document
from altgrad_core.report.render import TEMPLATES, Live, fragment, render_html
from altgrad_core.results.overview import read_progress, summary
from altgrad_core.results.run_directory import RunDirectory
from altgrad_core.results.sources import read_one
from altgrad_core.results.stored import StoredRun, StoredSuite

_PAUSE = 4.0
"""Times the processor's time for the last report that pass before the next."""
_SCRIPT = TEMPLATES / "live.js"

Signature = tuple[object, ...]


@dataclass(frozen=True)
class _Made:
    """The report as it was last made, without the progress above it."""

    version: str
    document: Document
    due: float
    """When the next may be made, on the clock."""


class Snapshot:
    """The live pages of the suite in ``folder``; safe to ask from several threads at once.

    ``make`` turns a suite into its report, ``clock`` counts seconds, ``spent`` those of the processor.
    """

    def __init__(
        self,
        folder: Path,
        make: Callable[[StoredSuite], Document],
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self.folder = folder
        self.make = make
        self._clock, self._spent = clock, spent
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._runs: dict[str, tuple[Signature, StoredRun]] = {}

    def page(self) -> str:
        """The whole page: the progress, and the newest report that may be made now."""
        with self._lock:
            if self._made is None or self._made.version != self._version():
                self._made = self._make_report()
            made = self._made
        progress = Markup(self.progress(made.version))
        live = Live(progress, _SCRIPT.read_text(encoding="utf-8"), made.version)
        return render_html(made.document, self.folder, live=live)

    def progress(self, version: str | None = None) -> str:
        """The progress as HTML, marked with the version of the report that there is to show."""
        version = self._version() if version is None else version
        try:
            cells, trouble = read_progress(self.folder, watched=True), ""
        except (UserError, OSError) as error:
            cells, trouble = [], str(error)
        return fragment(
            "progress.html.j2",
            version=version,
            cells=cells,
            summary=summary(cells),
            tuned=any(one.cell.stage == "tune" for one in cells),
            trouble=trouble,
        )

    def _version(self) -> str:
        """Names the state of the results; that of the last report until the next may be made."""
        made = self._made
        if made is not None and self._clock() < made.due:
            return made.version
        return self._state()

    def _state(self) -> str:
        folders = sorted(path.parent.name for path in self.folder.glob("*/spec.yaml"))
        own = (_stat(self.folder / "plan.json"), _stat(self.folder / "tuning.json"))
        runs = [(name, _run_signature(self.folder / name)) for name in folders]
        return hashlib.sha256(repr((own, runs)).encode()).hexdigest()[:16]

    def _make_report(self) -> _Made:
        version, start = self._state(), self._spent()
        try:
            document = self.make(self._read())
        except Exception as error:  # a page that is being watched must not die of one odd result
            text = f"No report can be made of the results as they are now: {error!r}."
            said = Paragraph(str(error) if isinstance(error, UserError) else text, lead=True)
            document = Document("No report now", (said,), ())
        pause = _PAUSE * (self._spent() - start)
        return _Made(version, document, self._clock() + pause)

    def _read(self) -> StoredSuite:
        """The suite; runs that have not changed since are those that were read before."""
        suite = read_one(self.folder)
        known, self._runs = self._runs, {}
        for run in suite.runs:
            signature = _run_signature(self.folder / run.spec.id)
            before = known.get(run.spec.id)
            kept = before[1] if before is not None and before[0] == signature else run
            self._runs[run.spec.id] = (signature, kept)
        return replace(suite, runs=tuple(kept for _, kept in self._runs.values()))


def _run_signature(path: Path) -> Signature:
    """What the report shows of a run. Its status counts by name: the heartbeat is not news."""
    directory = RunDirectory(path)
    files = (directory.spec, directory.metrics, directory.facts, directory.environment)
    try:
        status = str(directory.status().status)
    except (UserError, OSError):
        status = "unreadable"
    return (status, *map(_stat, files))


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size

"""Trackers that do not answer, remembered in the folder of a suite, so that not every run waits for them in full."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

PATIENCE_SECONDS = 30.0
"""How long a tracker is waited for at the beginning of a suite, and at the end of a run."""
_BRIEF_SECONDS = 3.0
_REMEMBERED_SECONDS = 3600.0


class Silences:
    """Which trackers did not answer in the last hour; all processes of a suite share it.

    folder:
        the suite's; None remembers nothing.
    """

    def __init__(self, folder: Path | None = None, patience: float = PATIENCE_SECONDS) -> None:
        self._folder, self._patience = folder, patience

    def patience(self, tracker: str) -> float:
        """Seconds to wait for a tracker."""
        if self._folder is None:
            return self._patience
        try:
            age = time.time() - self._note(tracker).stat().st_mtime
        except OSError:
            return self._patience
        remembered = 0.0 <= age < _REMEMBERED_SECONDS
        return min(self._patience, _BRIEF_SECONDS) if remembered else self._patience

    def heard(self, tracker: str, answered: bool) -> None:
        """Remember whether it answered in that time."""
        if self._folder is not None:
            with contextlib.suppress(OSError):  # nothing but time is lost
                note = self._note(tracker)
                note.unlink(missing_ok=True) if answered else note.touch()

    def _note(self, tracker: str) -> Path:
        return (self._folder or Path()) / f".no-answer-from-{tracker}"

"""From how a process ended to the status of its run."""

from __future__ import annotations

import os
import signal

from altgrad_core._text import plain
from altgrad_core.interfaces.executor import Exit
from altgrad_core.results.run_directory import FINISHED, RunDirectory, Status

_LOG_LINES = 5
_LOG_BYTES = 1 << 14
"""How much of the end of a log is looked at."""


def status_after_exit(directory: RunDirectory, end: Exit) -> Status:
    """The status of a run whose process has ended; the worker's own word where it could still give it."""
    status = directory.status()
    if status.status in FINISHED:  # the result is there; how the process went away does not matter
        return status
    if end.timed_out:
        return status.model_copy(update={"status": "timeout", "message": "ran out of time"})
    if end.code < 0:
        message = f"killed by {_signal_name(-end.code)}"
        if -end.code == signal.SIGKILL:
            message += " (by hand, or by the system for want of memory)"
        return status.model_copy(update={"status": "killed", "message": message})
    if status.status in ("pending", "running"):  # it ended without a last word
        message = f"exit code {end.code}; last lines of log.txt: {_tail(directory)}"
        return status.model_copy(update={"status": "error", "message": message})
    return status


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tail(directory: RunDirectory) -> str:
    if not directory.log.exists():
        return "(no log)"
    with directory.log.open("rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_BYTES))
        text = log.read().decode("utf-8", errors="replace")
    lines = plain(text, None).strip().splitlines()
    return " | ".join(lines[-_LOG_LINES:])

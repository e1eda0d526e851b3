"""From how a process ended to the status of its run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from altgrad_core._text import plain
from altgrad_core.interfaces.executor import Exit
from altgrad_core.locks.lock import run_lock
from altgrad_core.results.run_directory import FINISHED, RunDirectory, Status

HELD = 75
"""Exit code of a worker whose run is in another process's hands (``EX_TEMPFAIL``: try again later)."""
_LOG_LINES = 5
_LOG_BYTES = 1 << 14
"""How much of the end of a log is looked at."""


def settle(directory: RunDirectory, ended: Callable[[], Status]) -> Status:
    """Write the status of a run whose process is gone, and return it: a result that is there stays.

    Raises ``RunHeld`` if another process has taken the run up in the meantime, whose status is not ours
    to write; ``UserError`` and ``OSError`` if the directory is gone or cannot be written.

    ended:
        gives the status; called when no other process can change it.
    """
    status = directory.status()
    if status.status not in FINISHED:
        with run_lock(directory.lock):
            status = directory.status()
            if status.status not in FINISHED:
                status = ended()
                directory.write_status(status)
    # However the process went away, and whoever may still hold its lock.
    if status.status in FINISHED:
        directory.checkpoint.unlink(missing_ok=True)
    return status


def status_after_exit(directory: RunDirectory, end: Exit) -> Status:
    """The status of a run whose process has ended; the worker's own word where it could still give it."""
    status = directory.status()
    if status.status in FINISHED:  # the result is there; how the process went away does not matter
        return status
    if end.failed:
        return status.model_copy(update={"status": "error", "message": end.failed})
    if end.timed_out or end.stalled:
        return status.model_copy(update={"status": "timeout", "message": how_it_ended(end)})
    if end.code < 0:
        return status.model_copy(update={"status": "killed", "message": how_it_ended(end)})
    if status.status in ("pending", "running"):  # it ended without a last word
        tail = " | ".join(last_lines(directory.log, _LOG_LINES))
        message = f"{how_it_ended(end)}; last lines of log.txt: {tail}"
        return status.model_copy(update={"status": "error", "message": message})
    return status


def how_it_ended(end: Exit) -> str:
    """In words: ran out of time, killed by a signal, or an exit code."""
    if end.failed:
        return end.failed
    if end.stalled:
        return "gave no sign of life for the time of --stall-timeout"
    if end.timed_out:
        return "ran out of time"
    if end.code >= 0:
        return f"exit code {end.code}"
    by_hand = " (by hand, or by the system for want of memory)"
    return f"killed by {_signal_name(-end.code)}{by_hand if -end.code == signal.SIGKILL else ''}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_lines(log: Path, count: int) -> list[str]:
    """The end of what a process printed."""
    if not log.exists():
        return ["(no log)"]
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return plain(text, None).strip().splitlines()[-count:]

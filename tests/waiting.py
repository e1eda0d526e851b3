"""Waiting for what another thread or process does, however busy the machine is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Look until it holds; fails where it does not in that time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not in {seconds:g} s"
        time.sleep(0.02)


def gone(*pids: int) -> bool:
    """Whether the processes end in time: those of the tests sleep for a minute, and then end by themselves."""
    until(lambda: not any(map(alive, pids)), 20)
    return True


def alive(pid: int) -> bool:
    """Whether a process is there; one whose end nobody has asked for yet is not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
    except (ProcessLookupError, FileNotFoundError):
        return False

"""What is shown while a suite runs: notes of runs at the end, texts without escape sequences."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from altgrad_core.execution.progress import BarDisplay, Display, LineDisplay
from altgrad_core.interfaces.executor import Job
from altgrad_core.results.run_directory import Status

NOTE = "the tracker 'wandb' failed in start and is switched off: CommError: no"


@pytest.mark.parametrize("make", [LineDisplay, BarDisplay])
def test_notes_are_said_once_at_the_end_and_escapes_never(make: type[Display]) -> None:
    out = io.StringIO()
    display = make(Console(file=out, width=200))  # type: ignore[call-arg]
    with display:
        display.begin(3, 0)
        for number in range(3):
            job = Job(str(number), f"cell {number}", Path(), (), {})
            display.started(job, 10)
            notes = (NOTE,) if number else ()
            display.finished(job, Status(status="error", message="\x1b[2Jgone", notes=notes))
    said = out.getvalue()
    assert said.count(NOTE) == 1
    assert f"note: {NOTE} (2 runs)" in said
    assert said.index("note: ") > said.index("cell 2")
    assert "gone" in said
    assert "\x1b[2J" not in said


def test_on_a_terminal_how_a_run_ended_stands_on_its_line() -> None:
    out = io.StringIO()
    display = BarDisplay(Console(file=out, width=200, force_terminal=True))
    with display:
        display.begin(1, 0)
        job = Job("0", "cell 0", Path(), (), {})
        display.started(job, 10)
        display.finished(job, Status(status="ok", seconds=3.0))
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "\n").split("\n")
    assert "ok       cell 0  3 s" in [line.rstrip() for line in lines]

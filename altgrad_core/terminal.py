"""What the command line prints to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from altgrad_core._text import plain

if TYPE_CHECKING:  # rich takes as long to import as a completion may take
    from rich.console import Console

_PIPE_WIDTH = 160


def output() -> Console:
    """The terminal; in a pipe or a file, lines wide enough for the tables."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def say(console: Console, text: str) -> None:
    """A line of plain text."""
    console.print(plain(text, None), markup=False, highlight=False, soft_wrap=True)

"""What the command line prints to."""

from __future__ import annotations

import sys

from rich.console import Console

from altgrad_core._text import plain

_PIPE_WIDTH = 160


def output() -> Console:
    """The terminal; in a pipe or a file, lines wide enough for the tables."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def say(console: Console, text: str) -> None:
    """A line of plain text."""
    console.print(plain(text, None), markup=False, highlight=False, soft_wrap=True)

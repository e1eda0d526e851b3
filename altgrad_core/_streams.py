"""Standard output and error of a process: whatever their encoding, writing to them does not fail."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator


def safe_streams(encoding: str | None = None) -> None:
    """Let stdout and stderr take any text: what their encoding lacks is written as an escape or ``?``.

    A stream that the caller closed (``>&-``) takes everything and keeps nothing. ``encoding``
    replaces that of the surroundings, for output that a program reads.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="replace"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            how = "replace" if encoding is None else "backslashreplace"
            stream.reconfigure(encoding=encoding, errors=how)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """What is printed in the block goes to stderr: by Python, by libraries, and by child processes."""
    out = sys.stdout
    try:
        out.flush()
        kept = os.dup(1)
    except OSError:  # there is no standard output
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    try:
        sys.stderr.flush()
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        out.flush()
        os.dup2(kept, 1)
        os.close(kept)

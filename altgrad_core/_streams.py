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
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            how = "replace" if encoding is None else "backslashreplace"
            stream.reconfigure(encoding=encoding, errors=how)


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """What is printed in the block goes to stderr: by Python, by libraries, and by child processes."""
    out = sys.stdout
    try:
        descriptor, target = out.fileno(), sys.stderr.fileno()
        out.flush()
        kept = os.dup(descriptor)
    except (AttributeError, OSError, ValueError):  # not the streams of a process, as in a notebook
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    try:
        os.dup2(target, descriptor)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        out.flush()
        os.dup2(kept, descriptor)
        os.close(kept)

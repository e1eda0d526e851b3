"""Calling code of strangers: whatever it raises, only a person who presses Ctrl-C ends the command."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from altgrad_core._text import plain
from altgrad_core.errors import UserError


class StrangeError(Exception):
    """What code of a stranger raised, in words; the original is the cause."""


@contextlib.contextmanager
def strangers_code() -> Iterator[None]:
    """Turns whatever the block raises, ``SystemExit`` and ``KeyboardInterrupt`` too, into ``StrangeError``.

    ``UserError``, and a ``KeyboardInterrupt`` that a signal has brought, go through.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        if callable(before):
            before(number, frame)

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    guard = main and callable(before)  # where SIGINT is ignored, or not Python's, it stays so
    if guard:
        signal.signal(signal.SIGINT, note)
    try:
        yield
    except BaseException as error:
        if pressed or isinstance(error, UserError):
            raise
        raise StrangeError(plain(f"{type(error).__name__}: {error}")) from error
    finally:
        if guard and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)

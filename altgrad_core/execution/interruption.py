"""Ctrl-C, SIGTERM and SIGHUP while jobs run: held back to a moment at which everything can be put in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """The user, a scheduler or a closed terminal asked for the end; ``number`` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.number = number


@contextlib.contextmanager
def signals_held_back() -> Iterator[Callable[[], None]]:
    """Yields ``check``, which raises :class:`Interrupted` if a signal has come since; so does the end.

    Between two checks nothing is cut in half. A second signal does not wait for the next check, in case
    none comes; once ``check`` has raised, further ones are ignored, so that the cleaning up is not cut
    in half either. Signals that are ignored (``nohup``) or handled by others are left alone, and so are
    all of them outside the main thread.
    """
    received: list[int] = []
    raised = False

    def check() -> None:
        nonlocal raised
        if received and not raised:
            raised = True
            raise Interrupted(received[0])

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            check()

    ours = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                ours[number] = signal.signal(number, receive)
    try:
        yield check
        check()
    finally:
        for number, before in ours.items():
            signal.signal(number, before)

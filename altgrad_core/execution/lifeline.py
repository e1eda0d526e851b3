"""A worker ends with the process that started it, however that one ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from altgrad_core.interfaces.executor import LIFELINE

_GRACE_SECONDS = 5.0


def watch_lifeline(save: Callable[[], None] = lambda: None) -> None:
    """End this process, and what it started, once the other end of its lifeline is closed.

    Does nothing where the executor gave no lifeline.

    save:
        called, in a thread, when the executor asks for a checkpoint.
    """
    if descriptor := os.environ.pop(LIFELINE, None):
        threading.Thread(
            target=_wait, args=(int(descriptor), save), name="lifeline", daemon=True
        ).start()


def _wait(descriptor: int, save: Callable[[], None]) -> None:
    while os.read(descriptor, 1):  # empty when the pipe is closed
        save()
    print("the process that started this one is gone: ending", flush=True)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if os.getpgrp() == os.getpid():
            os.killpg(0, number)
        else:  # the group is not this process's own
            os.kill(os.getpid(), number)
        time.sleep(_GRACE_SECONDS)

"""Random numbers that a run cannot repeat: those of ``random`` and of numpy, which nobody seeds for it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def no_other_draws(who: str, instead: str) -> Iterator[None]:
    """Raise ``AssertionError`` if the block draws from ``random`` or from numpy's global generator, or seeds it.

    Both are as before afterwards. ``instead``: what to draw from.
    """
    python, array = random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
        if random.getstate() != python:
            raise AssertionError(f"{who} draws from Python's random module, or seeds it: {instead}")
        if str(np.random.get_state(legacy=False)) != str(array):
            raise AssertionError(
                f"{who} draws from numpy's global generator, or seeds it: {instead}"
            )
    finally:
        random.setstate(python)
        np.random.set_state(array)

"""Random numbers that a run cannot repeat: those of ``random`` and of numpy, which nobody seeds for it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np


@contextlib.contextmanager
def no_other_draws(who: str, instead: str) -> Iterator[None]:
    """Raise ``AssertionError`` if the block draws from ``random`` or numpy's global generator, or seeds it.

    So it does if the block makes a generator of numpy without a seed.

    Both are as before afterwards. ``instead``: what to draw from.
    """
    python, array = random.getstate(), np.random.get_state(legacy=False)
    make = np.random.default_rng
    unseeded: list[None] = []

    def noted(seed: Any = None) -> np.random.Generator:
        if seed is None:
            unseeded.append(None)
        return make(seed)

    try:
        with mock.patch.object(np.random, "default_rng", noted):
            yield
        if unseeded:
            raise AssertionError(f"{who} calls numpy's default_rng() without a seed: {instead}")
        if random.getstate() != python:
            raise AssertionError(f"{who} draws from Python's random module, or seeds it: {instead}")
        if str(np.random.get_state(legacy=False)) != str(array):
            raise AssertionError(
                f"{who} draws from numpy's global generator, or seeds it: {instead}"
            )
    finally:
        random.setstate(python)
        np.random.set_state(array)

"""The draws of :mod:`.draws`, compiled for one CPU core."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from altgrad_core.interfaces.compiling import kernel
from altgrad_core.interfaces.philox import MULTIPLIERS, ROUNDS, WEYL


@njit(inline="always")  # type: ignore[untyped-decorator]  # else its loop is not vectorised
def _words(
    counter: np.uint64, key0: np.uint64, key1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    word, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, x2, x3 = counter & word, counter >> half, np.uint64(0), np.uint64(0)
    for turn in range(ROUNDS):
        left = (key0 + np.uint64(turn) * np.uint64(WEYL[0])) & word
        right = (key1 + np.uint64(turn) * np.uint64(WEYL[1])) & word
        p0, p1 = x0 * np.uint64(MULTIPLIERS[0]), x2 * np.uint64(MULTIPLIERS[1])
        x0, x1, x2, x3 = (p1 >> half) ^ x1 ^ left, p1 & word, (p0 >> half) ^ x3 ^ right, p0 & word
    return x0, x1, x2, x3


@njit(inline="always")  # type: ignore[untyped-decorator]  # else its loop is not vectorised
def _draw(drawn: NDArray[np.float32], first: np.uint64, key0: np.uint64, key1: np.uint64) -> None:
    """Uniform numbers of float32 at the counters from ``first`` on; their count is a multiple of 4."""
    unit, low = np.float32(2.0**-24), np.uint64(8)
    for block in range(drawn.shape[0] // 4):
        x0, x1, x2, x3 = _words(first + np.uint64(block), key0, key1)
        drawn[4 * block] = np.float32(np.int32(x0 >> low)) * unit
        drawn[4 * block + 1] = np.float32(np.int32(x1 >> low)) * unit
        drawn[4 * block + 2] = np.float32(np.int32(x2 >> low)) * unit
        drawn[4 * block + 3] = np.float32(np.int32(x3 >> low)) * unit


def fill(drawn: Tensor, key: int, first: int = 0) -> None:
    """Write uniform numbers into ``drawn``, which is contiguous and float32 or float64.

    ``first``: the element of the stream to begin with, a multiple of 4.
    """
    flat = drawn.view(-1).numpy()
    double = flat.dtype == np.float64
    counter = np.uint64(first // 2 if double else first // 4)
    halves = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)
    (_fill_double if double else fill_floats)(flat, counter, *halves)


@kernel("void(float32[::1], uint64, uint64, uint64)")
def fill_floats(
    drawn: NDArray[np.float32], first: np.uint64, key0: np.uint64, key1: np.uint64
) -> None:
    """Write uniform numbers from the counter ``first`` on, with the halves of a key."""
    whole = drawn.shape[0] // 4 * 4
    _draw(drawn[:whole], first, key0, key1)
    if whole < drawn.shape[0]:
        last = np.empty(4, np.float32)
        _draw(last, first + np.uint64(whole // 4), key0, key1)
        drawn[whole:] = last[: drawn.shape[0] - whole]


@kernel("void(float64[::1], uint64, uint64, uint64)")
def _fill_double(
    drawn: NDArray[np.float64], first: np.uint64, key0: np.uint64, key1: np.uint64
) -> None:
    unit = 2.0**-53
    for block in range((drawn.shape[0] + 1) // 2):
        x0, x1, x2, x3 = _words(first + np.uint64(block), key0, key1)
        drawn[2 * block] = ((x0 >> np.uint64(5) << np.uint64(26)) + (x1 >> np.uint64(6))) * unit
        if 2 * block + 1 < drawn.shape[0]:
            upper = x2 >> np.uint64(5) << np.uint64(26)
            drawn[2 * block + 1] = (upper + (x3 >> np.uint64(6))) * unit

"""Float32 that share their leading bits are a run of neighbours, which tells where among sorted points they lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def run_ends(dropped: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The smallest and the largest float of each run; ``dropped`` is how many bits of a float are none of its leading.

    In the order of the leading bits, so that negative ones come last. What lies behind inf is NaN.
    """
    leading = np.arange(1 << (32 - dropped), dtype=np.uint32) << dropped
    first, last = leading.view(np.float32), (leading | ((1 << dropped) - 1)).view(np.float32)
    last = np.where(np.isinf(first), first, last)  # behind inf lies NaN
    negative = np.signbit(first)
    return np.where(negative, last, first), np.where(negative, first, last)


def points_in_runs(
    points: NDArray[np.float32], dropped: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each run how many of the ascending ``points`` are no larger than its smallest, and its largest float.

    NaN is put last.
    """
    low, high = run_ends(dropped)
    below, above = (np.searchsorted(points, end, side="right") for end in (low, high))
    return below, above

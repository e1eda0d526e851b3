"""Where on a grid a tensor is best placed, derived from the grid alone.

A float grid is as precise at its top as below, so the largest magnitude (amax) goes to the largest value:
headroom 1. A tapered grid (posits, some logarithmic ones) has its precision in the middle and wastes it
there; amax belongs well below its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_POINTS = 4096
_TOLERANCE_DB = 0.5
"""Less than this is not worth leaving the top of the range unused."""


def normal_sample(points: int = _POINTS) -> Tensor:
    """Quantiles of the standard normal distribution, float64: a tensor of weights without chance."""
    sample: Tensor = torch.special.ndtri(
        (torch.arange(points, dtype=torch.float64, device="cpu") + 0.5) / points
    )
    return sample


def sqnr(
    rounded: Callable[[Tensor], Tensor], largest: float, headrooms: Tensor, points: int = _POINTS
) -> Tensor:
    """Signal-to-quantisation-noise ratio, in dB, of a normal tensor: one for each headroom (1-d).

    ``rounded`` rounds to a grid whose largest value is ``largest``; headroom ``h`` puts amax at
    ``largest / h``. Inf where rounding changes nothing.
    """
    sample = normal_sample(points)
    scale = (sample.abs().max() * headrooms.double() / largest).unsqueeze(1)
    noise = rounded(sample / scale) * scale - sample
    return 10 * torch.log10(sample.square().sum() / noise.square().sum(1))


def best_headroom(rounded: Callable[[Tensor], Tensor], largest: float, smallest: float) -> float:
    """The least power of two whose SQNR is within half a decibel of the best.

    ``largest`` and ``smallest`` are the grid's ends above zero; see :func:`sqnr`.
    """
    most = max(0, math.floor(math.log2(largest / smallest)))
    rooms = 2.0 ** torch.arange(most + 1, dtype=torch.float64, device="cpu")
    found = sqnr(rounded, largest, rooms)
    return float(rooms[found >= found.max() - _TOLERANCE_DB][0])


def is_closed_under_doubling(values: Tensor, largest: float) -> bool:
    """Whether a grid (its values, those that are not finite aside) holds the double of each of them.

    Doubles beyond ``largest`` are not looked for. If so, halving the scale of a tensor that lies on the
    grid moves no value.
    """
    finite = values[values.isfinite()].double()
    doubles = 2 * finite
    return bool(torch.isin(doubles[doubles.abs() <= largest], finite).all())

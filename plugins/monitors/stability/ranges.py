"""What a format cannot hold: what lies beyond its ends, and what rounds to zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels.numbers import GridNumbers
from altgrad_plugins.monitors.geometry.ladders import ends


@dataclass(frozen=True)
class Range:
    """What one format can hold, in grid units: from ``smallest`` to ``largest``.

    ``low`` and ``high`` are the smallest and the largest float32 that round (to nearest) to zero.
    They turn the question whether ``x`` rounds to zero into two comparisons.
    """

    smallest: float
    largest: float
    low: float
    high: float

    @classmethod
    def of(cls, fmt: Format) -> Range:
        """The range of ``fmt``, found by asking it where its rounding to zero ends."""
        zero = torch.zeros(1)
        if float(fmt.round(zero)) != 0:
            return cls(*ends(fmt), low=math.inf, high=-math.inf)
        return cls(*ends(fmt), low=_edge(fmt, -1), high=_edge(fmt, 1))

    def counts(self, x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """How many elements of ``x`` overflow, and how many underflow: float64, 0-d.

        Overflow is ``x / scale`` above ``largest`` or below ``smallest``; underflow is ``x ≠ 0``
        whose rounding is zero; NaN is neither. ``scale`` broadcasts against ``x``. Where it is not
        finite the rounded tensor is NaN throughout, and so are both counts.
        """
        grid = x.detach().to(torch.float32) / scale
        overflows = torch.count_nonzero((grid > self.largest) | (grid < self.smallest))
        to_zero = (grid >= self.low) & (grid <= self.high)
        underflows = torch.count_nonzero(to_zero & (x != 0))
        return known(overflows, scale), known(underflows, scale)


def first_normal_rung(fmt: Format) -> float | None:
    """The rung of the smallest normal value; inf where all values are subnormal, as without exponent.

    None for a format that does not say where its normal values begin: one that is only a table.
    """
    numbers = getattr(fmt, "numbers", None)
    if not isinstance(numbers, GridNumbers):
        return None
    smallest = 2.0**numbers.min_exponent
    if smallest > fmt.max_finite:
        return math.inf
    return float(fmt.to_rung(torch.tensor([smallest])))


def known(count: Tensor, scale: Tensor) -> Tensor:
    """``count`` as float64, or NaN where ``scale`` is not finite."""
    return torch.where(torch.isfinite(scale).all(), count.to(torch.float64), torch.nan)


def _edge(fmt: Format, side: int) -> float:
    """The last float32 that rounds to zero, above (``side`` 1) or below zero (-1); inf if all do.

    Bit patterns of positive floats rise with them, so it is found by halving what lies between. Nothing
    is taken for granted of where the format rounds to zero: posits round nothing there but zero itself.
    """
    low, high = 0, 0x7F800000  # zero, and inf
    if float(fmt.round(_float(high, side))) == 0:  # the grid ends at zero on this side
        return side * math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if float(fmt.round(_float(middle, side))) else (middle, high)
    return float(_float(low, side))


def _float(pattern: int, side: int) -> Tensor:
    return side * torch.tensor([pattern], dtype=torch.int32).view(torch.float32)

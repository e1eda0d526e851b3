"""What a number format is: a finite set of real values, one per code.

Only :meth:`Format.code_values` has to be written. Everything else is derived from it, exactly, and may
be overridden with something faster; ``altgrad_core.testing`` checks an override against the derivation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

Rounding = Literal["nearest", "stochastic"]
Overflow = Literal["saturate", "special"]


class Format(ABC):
    """A set of grid values with their codes.

    Vocabulary: a *code* is a bit pattern, an integer in ``[0, 2**bits)``. A *rung* is a grid value's
    signed position: 0 at zero, +1 the next larger value. The *ULP* at ``x`` is the gap from the grid
    value at or below ``|x|`` to the next one away from zero. All three ignore any scale: a format knows
    only its own values.
    """

    name: str
    """The name under which the format was offered."""
    bits: int
    """Width of a code."""
    scaled: bool = True
    """Whether tensors are scaled to the format's range. Wide formats (bf16, fp32) are used at scale 1."""

    @abstractmethod
    def code_values(self) -> Tensor:
        """The value of each code: float32, shape ``(2**bits,)``, on the CPU. NaN and inf where the code says so."""

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", generator: torch.Generator | None = None
    ) -> Tensor:
        """The grid value for each element of ``x``; same shape, dtype and device.

        ``nearest`` breaks ties to the even code. ``stochastic`` picks one of the two neighbours with a
        probability that makes the mean exact; it draws from ``generator`` and never moves a grid
        value. NaN stays NaN, the sign of zero is kept.
        """
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """The code (int32) of the grid value nearest to ``x``."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """The value (float32) of each code."""
        raise NotImplementedError

    def to_rung(self, x: Tensor) -> Tensor:
        """The rung (int32) of the grid value nearest to ``x``."""
        raise NotImplementedError

    def from_rung(self, rungs: Tensor) -> Tensor:
        """The value (float32) on each rung. Rungs beyond the ends of the ladder give the end's value."""
        raise NotImplementedError

    def ulp(self, x: Tensor) -> Tensor:
        """The gap to the neighbouring grid value at ``x``; same shape, dtype and device as ``x``."""
        raise NotImplementedError

    @property
    def max_finite(self) -> float:
        """The largest finite grid value."""
        raise NotImplementedError

    @property
    def min_positive(self) -> float:
        """The smallest positive grid value."""
        raise NotImplementedError

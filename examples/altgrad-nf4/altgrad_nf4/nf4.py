"""NF4 as its authors define it: Dettmers et al. 2023, QLoRA (arXiv:2305.14314), section 3, appendix E.

Weights are roughly normal, so a grid that is used evenly has its values at evenly spaced quantiles of
a normal distribution. Zero must be one of the 16 values, so the two sides are made apart: 8 quantiles
for the positive side, 7 for the negative one, from 1 - delta down to 1/2, and all are divided by
the largest.
"""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

from altgrad_core.interfaces import Format, NoSettings

_OUTERMOST = 1 - (1 / 32 + 1 / 30) / 2
"""The outermost quantile, 0.96770833: midway between those that cut off half a cell of 16 and of 15."""


def nf4_values() -> list[float]:
    """The value of each of the 16 codes, in ascending order."""
    positive, negative = _side(8), _side(7)
    largest = positive[0]
    below = [-value / largest for value in negative]
    above = [value / largest for value in reversed(positive)]
    return [*below, 0.0, *above]


def _side(count: int) -> list[float]:
    """``count`` positive quantiles, evenly spaced in probability, outermost first; 1/2 is left out."""
    step = (_OUTERMOST - 0.5) / count
    return [NormalDist().inv_cdf(_OUTERMOST - step * index) for index in range(count)]


class NF4(Format):
    """A table of values is all that it takes: rounding, codes, rungs and ULP follow from it."""

    bits = 4

    def __init__(self, name: str) -> None:
        self.name = name

    def code_values(self) -> Tensor:
        return torch.tensor(nf4_values(), dtype=torch.float32)


def build(name: str, settings: NoSettings) -> NF4:
    """What the offer points at."""
    return NF4(name)

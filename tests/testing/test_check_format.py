"""check_format finds values that change and methods that wait for the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces import Format
from altgrad_core.testing.formats import check_format


class Good(Format):
    name, bits = "good", 4

    def code_values(self) -> Tensor:
        half = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
        return torch.cat([half, -half])


class Drifts(Good):
    """Right when it is first asked, and for a while after."""

    asked = 0

    def code_values(self) -> Tensor:
        self.asked += 1
        return super().code_values() * (1.0 if self.asked < 60 else 2.0)


class Shares(Good):
    """Hands out a table that its own rounding writes to."""

    def __init__(self) -> None:
        self.values = super().code_values()

    def code_values(self) -> Tensor:
        return self.values

    def round(self, x: Tensor, rounding: Any = "nearest", generator: Any = None) -> Tensor:
        found = super().round(x, rounding, generator)
        if rounding == "stochastic":
            self.values[7] = 7.0
        return found


class Reads(Good):
    def round(self, x: Tensor, rounding: Any = "nearest", generator: Any = None) -> Tensor:
        self.check_dtype(x)
        if x.numel() and x.isnan().any():
            return super().round(x, rounding, generator)
        return super().round(x, rounding, generator)


class Masks(Good):
    def ulp(self, x: Tensor) -> Tensor:
        found = super().ulp(x)
        found[x.isnan()] = torch.nan
        return found


class MovesThresholds(Good):
    asked = 0

    def thresholds(self) -> Tensor:
        self.asked += 1
        values = torch.unique(self.code_values() + 0.0).double()
        return (values[1:] + values[:-1]) / 2 * (1.0 if self.asked < 60 else 1.01)


class Drowns(Good):
    headroom = 0.0


class Halves(Good):
    """Says that halving a scale moves nothing, which is not so: 0.6 is no value."""

    closed_under_doubling = True

    def code_values(self) -> Tensor:
        half = torch.tensor([0.0, 0.3, 0.7, 1.1, 1.9, 2.3, 4.1, 6.0])
        return torch.cat([half, -half])


class DrawsFromNumpy(Good):
    def round(self, x: Tensor, rounding: Any = "nearest", generator: Any = None) -> Tensor:
        if rounding == "stochastic":
            np.random.rand()
        return super().round(x, rounding, generator)


def test_a_good_format_passes() -> None:
    check_format(Good())


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (Drifts, r"code 1 had the value 0.5 and later.* 1.0: compute the values from constants"),
        (Shares, r"code 7 had the value 6.0 and later.* 7.0: .*that nothing else writes to"),
        (MovesThresholds, r"thresholds\(\)\[0\] was -5.0 and later, .* -5.05"),
        (Drowns, "headroom must be a number of at least 1, not 0.0"),
        (Halves, "closed_under_doubling is True, and twice some value is no value"),
        (DrawsFromNumpy, "draws from numpy's global generator"),
        (Reads, r"round\(\) makes the host wait for the device, by item\(\), float\(\), bool\(\)"),
        (
            Masks,
            r"ulp\(\) makes the host wait for the device, by an index by a mask: use torch.where",
        ),
    ],
)
def test_each_fault_is_found(bad: type[Format], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_format(bad())

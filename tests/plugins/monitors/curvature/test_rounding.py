"""Squared rounding errors against a search through the values of the codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.testing.monitors import CoarseFormat
from altgrad_plugins.monitors.curvature.rounding import (
    expected_square,
    nearest_square,
    nearest_value,
)


@dataclass
class Grid:
    """A weight geometry with a scale that the test sets."""

    format: Format
    by: Tensor

    def scale(self) -> Tensor:
        return self.by

    def rung(self, weight: Tensor) -> Tensor:
        return self.format.to_rung(weight / self.by)

    def value(self, rungs: Tensor) -> Tensor:
        return self.format.from_rung(rungs) * self.by


def search(weight: float, values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The squared error to nearest, and its mean over stochastic rounding."""
    nearest = float(np.abs(values - weight).min() ** 2)
    if not values[0] < weight < values[-1]:
        return nearest, nearest
    above = int(np.searchsorted(values, weight))
    low, high = values[above - 1], values[above]
    p = (weight - low) / (high - low)
    return nearest, float((1 - p) * (weight - low) ** 2 + p * (high - weight) ** 2)


@pytest.mark.parametrize("granularity", ["one scale", "per row", "per element"])
@pytest.mark.parametrize("name", ["e0m7", "e4m3", "e5m2", "e7m0", "coarse"])
def test_errors_are_those_of_a_search(
    name: str, granularity: str, load_format: Callable[..., Format]
) -> None:
    fmt = CoarseFormat() if name == "coarse" else load_format(name)
    generator = torch.Generator().manual_seed(0)
    shape = {"one scale": (), "per row": (6, 1), "per element": (6, 9)}[granularity]
    scale = 2.0 ** torch.randint(-3, 4, shape, generator=generator).float()
    # From zero to beyond the end of the grid, in every part of it.
    exponents = torch.rand(6, 9, generator=generator) * 9 - 8
    grid = torch.randn(6, 9, generator=generator).sign() * 2.0**exponents * fmt.max_finite
    grid[0, :4] = torch.tensor([0.0, fmt.max_finite, -fmt.max_finite, fmt.min_positive])
    weight = grid * scale
    codes = fmt.code_values().double()
    values = np.array(sorted(set(codes[codes.isfinite()].tolist())))
    place = Grid(fmt, scale)
    nearest = nearest_square(place, weight)
    expected = expected_square(place, weight)
    beyond = 0
    for row in range(6):
        for column in range(9):
            by = float(scale.expand(6, 9)[row, column])
            found = search(float(weight[row, column]), values * by)
            size = by * by
            assert float(nearest[row, column]) == pytest.approx(
                found[0], rel=1e-4, abs=1e-12 * size
            )
            assert float(expected[row, column]) == pytest.approx(
                found[1], rel=1e-4, abs=1e-12 * size
            )
            beyond += abs(float(grid[row, column])) > fmt.max_finite
    assert beyond >= 3
    assert expected[0, :4].tolist() == [0, 0, 0, 0]


def test_it_is_the_variance_of_the_formats_own_stochastic_rounding(
    load_format: Callable[..., Format],
) -> None:
    fmt, weight = load_format("e3m4"), torch.linspace(-20, 20, 41) * 1.037
    place = Grid(fmt, torch.tensor(1.0))
    generator = torch.Generator().manual_seed(0)
    draws = fmt.round(weight.repeat(20_000, 1), "stochastic", generator).double()
    squares, found = (draws - weight).square(), expected_square(place, weight)
    error = squares.std(0) / 20_000**0.5
    assert torch.all((squares.mean(0) - found).abs() <= 4.5 * error + 1e-12)
    assert torch.all(4.5 * error < 0.3 * found + 1e-12)
    assert int((found > 0).sum()) == 40  # all but zero


def test_formats_without_a_scale_and_of_many_bits(load_format: Callable[..., Format]) -> None:
    weight = torch.tensor([1.0 + 2.0**-9, 3.0, math.nan])
    bf16 = Grid(load_format("bf16"), torch.tensor(1.0))
    quarter = 2.0**-9 * (2.0**-7 - 2.0**-9)
    assert expected_square(bf16, weight)[:2].tolist() == pytest.approx([quarter, 0])
    fp32 = Grid(load_format("fp32"), torch.tensor(1.0))
    assert expected_square(fp32, weight)[:2].tolist() == [0, 0]
    assert nearest_value(bf16, weight).isnan().tolist() == [False, False, True]
    assert expected_square(bf16, weight).isnan().tolist() == [False, False, True]

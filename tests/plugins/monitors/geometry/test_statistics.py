"""The statistics that stay on the device, against numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from altgrad_plugins.monitors.geometry import statistics


@pytest.mark.parametrize("size", [1, 7, 20, 100, 1001])
def test_quantiles_are_elements_that_so_many_do_not_exceed(size: int) -> None:
    torch.manual_seed(size)
    x = torch.randn(size).round(decimals=1)  # with ties
    percents = (1, 5, 25, 50, 90, 95, 99, 100)
    expected = np.quantile(
        x.double().numpy(), [p / 100 - 1e-9 for p in percents], method="inverted_cdf"
    )
    assert statistics.quantiles(x, percents).tolist() == pytest.approx(expected.tolist())
    ranks = [max(1, math.ceil(p * size / 100 - 1e-9)) for p in percents]
    selected, picked = statistics._selected(x, ranks), statistics._picked(x, ranks)
    assert torch.equal(selected, picked)
    assert torch.equal(selected, statistics.quantiles(x, percents))


def test_correlations_of_what_does_not_vary_are_nan_whatever_its_value() -> None:
    counted = torch.ones(1000, dtype=torch.bool)
    counted[::7] = False
    y = torch.randn(1000)
    for constant in (0.0, 0.1, -1 / 3, 1e-30, 1e30):
        x = torch.where(counted, constant, torch.randn(1000).double())
        assert math.isnan(statistics.correlation(x, y, counted))
        assert statistics.centred(x, counted).abs().max() == 0


def test_a_correlation_does_not_see_what_is_not_counted() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(500) * 1e-6 + 3, torch.randn(500)
    y += 1e6 * (x - 3)
    counted = torch.rand(500) < 0.7
    expected = stats.pearsonr(x[counted].double(), y[counted].double()).statistic
    x[~counted], y[~counted] = math.nan, math.inf
    assert float(statistics.correlation(x, y, counted)) == pytest.approx(expected, rel=1e-9)


def test_ranks_are_those_of_scipy() -> None:
    torch.manual_seed(0)
    x = torch.randn(12, 20).round(decimals=1)
    counted = torch.rand(12, 20) < 0.6
    expected = stats.rankdata(x[counted].numpy())
    found = statistics.average_ranks(x, counted)
    assert found[counted].tolist() == expected.tolist()
    assert found[~counted].min() > expected.max()


def test_decibels() -> None:
    signal = torch.tensor([100.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    noise = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    found = statistics.decibels(signal, noise).tolist()
    assert found[:3] == [20.0, math.inf, -math.inf]
    assert math.isnan(found[3])


def test_one_broken_element_spoils() -> None:
    x = torch.full((1000,), 3e38)
    assert float(statistics.spoilt(x)) == 0
    for value in (math.nan, math.inf, -math.inf):
        x[17] = value
        assert math.isnan(float(statistics.spoilt(x)))

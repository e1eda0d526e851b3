"""Gradient norms against numpy in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from altgrad_core.interfaces.monitor import Monitor


def doubles(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().double().numpy()


def test_gradient_norms_are_those_of_numpy_and_the_total_is_over_all_parameters(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("gradients"), two_layers())
    metrics = place.step(inputs=torch.randn(4, 6))
    gradients = {n: doubles(p.grad) for n, p in place.model.named_parameters()}
    assert len(gradients) == 4  # two biases are not quantised
    for name in place.weights:
        assert metrics[f"gradients/{name}/l2"] == pytest.approx(
            np.sqrt((gradients[name] ** 2).sum()), rel=1e-14
        )
        assert metrics[f"gradients/{name}/linf"] == np.abs(gradients[name]).max()
        assert metrics[f"gradients/{name}/nonfinite"] == 0
    everything = np.concatenate([g.ravel() for g in gradients.values()])
    assert metrics["gradients/all/l2"] == pytest.approx(np.sqrt((everything**2).sum()), rel=1e-14)
    assert metrics["gradients/all/linf"] == np.abs(everything).max()
    assert metrics["gradients/all/nonfinite"] == 0
    assert len(metrics) == 3 * 3


def test_the_total_does_not_depend_on_the_watched_layers(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    found = []
    for layers in (("*",), ("0.*",)):
        torch.manual_seed(3)
        place = bench(load_monitor("gradients", layers=layers), two_layers())
        found.append(place.step(inputs=torch.randn(4, 6)))
    assert len(found[1]) == 2 * 3
    assert found[1] == {name: found[0][name] for name in found[1]}


def test_norms_neither_overflow_nor_underflow_nor_lose_small_entries(
    load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    model = nn.Linear(1000, 1000, bias=False)
    place = bench(load_monitor("gradients"), model)
    for size in (1e30, 1e-30):
        metrics = place.step(gradients={"weight": torch.full((1000, 1000), size)})
        assert metrics["gradients/all/l2"] == pytest.approx(1000 * size, rel=1e-6)
    ones = torch.ones(1000, 1000)
    ones[0, 0] = 5000.0  # a float32 sum of squares would not notice the others
    metrics = place.step(gradients={"weight": ones})
    assert metrics["gradients/all/l2"] == pytest.approx(math.sqrt(999_999 + 25e6), rel=1e-12)


def test_entries_that_are_not_finite_are_counted(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("gradients"), two_layers())
    broken = torch.zeros(7, 6)
    broken[0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    broken[1] = -torch.tensor(3e38)
    metrics = place.step(gradients={"0.weight": broken, "2.bias": torch.full((5,), math.nan)})
    assert metrics["gradients/0.weight/nonfinite"] == 3
    assert metrics["gradients/all/nonfinite"] == 8
    assert math.isnan(metrics["gradients/0.weight/l2"])
    assert math.isnan(metrics["gradients/all/linf"])
    assert "gradients/2.weight/l2" not in metrics

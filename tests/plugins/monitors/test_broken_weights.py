"""A weight that is NaN or inf is on no rung, and no monitor takes it for a number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.quantization.settings import ScalingSettings

WATCHED = (
    *("flips", "stiffness", "distance", "motion", "reversals", "drift", "updates", "uniformity"),
    *("stalls", "rank", "code_usage"),
)
BEFORE = {"stiffness", "rank", "code_usage"}
"""Those that measure before the update."""


@pytest.mark.parametrize("monitor", WATCHED)
@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("when", ["before", "by the update"])
def test_a_broken_weight_makes_its_layer_nan(
    monitor: str,
    residency: Any,
    value: float,
    when: str,
    load_monitor: Callable[..., Monitor],
    bench: Any,
    two_layers: Any,
) -> None:
    """Under a frozen scale, which is finite whatever the weights are."""
    model = two_layers("e5m2", residency=residency, scaling=ScalingSettings(mode="frozen"))
    place = bench(load_monitor(monitor, interval=1), model)

    def spoil(name: str, weight: Tensor) -> Tensor:
        return weight.index_fill(0, torch.tensor(2), value) if name == "0.weight" else weight * 1.1

    place.step(1, inputs=torch.ones(1, 6), change=lambda name, weight: weight * 1.1)
    if when == "before":
        with torch.no_grad():
            for name, weight in place.model.named_parameters():
                weight.copy_(spoil(name, weight))
    metrics = place.step(2, inputs=torch.ones(1, 6), change=spoil)
    broken = when == "before" or monitor not in BEFORE
    for name, found in metrics.items():
        _, layer, metric = name.split("/")
        if layer != "all" and "gradient" not in metric and metric != "scale_changes":
            healthy = layer == "2.weight" or not broken
            assert math.isfinite(found) == healthy, (name, found)
    assert any(math.isnan(found) for found in metrics.values()) == broken

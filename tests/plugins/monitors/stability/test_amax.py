"""Amax against numpy in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from altgrad_core.interfaces.monitor import Monitor


def doubles(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().double().numpy()


def test_amax_of_weights_gradients_and_scales(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("amax"), two_layers("e3m4"))
    weights = {n: doubles(w.parameter.clone()) for n, w in place.weights.items()}
    metrics = place.step(inputs=torch.randn(4, 6), change=lambda name, weight: weight * 3)
    for name, weight in weights.items():
        gradient = doubles(place.weights[name].parameter.grad)
        amax = np.abs(weight).max()
        assert metrics[f"amax/{name}/weight"] == amax
        assert metrics[f"amax/{name}/gradient"] == np.abs(gradient).max()
        assert metrics[f"amax/{name}/scale"] == 2.0 ** math.ceil(math.log2(amax / 31))
    for metric in ("weight", "gradient", "scale"):
        each = [metrics[f"amax/{name}/{metric}"] for name in weights]
        assert metrics[f"amax/all/{metric}"] == max(each)
    assert len(metrics) == 3 * 3


def test_amax_of_several_scales_is_the_largest_and_nan_shows(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("amax", layers=("0.*",)), two_layers("e3m4"))

    class ByRow:
        parameter = place.weights["0.weight"].parameter

        def scale(self) -> torch.Tensor:
            return torch.tensor([[1.0], [4.0], [2.0]])

    place.run.weights = {"0.weight": ByRow()}
    with torch.no_grad():
        ByRow.parameter[0, 0] = math.nan
    metrics = place.step()
    assert metrics["amax/0.weight/scale"] == 4.0
    assert math.isnan(metrics["amax/0.weight/weight"])
    assert math.isnan(metrics["amax/all/weight"])

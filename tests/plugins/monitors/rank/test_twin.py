"""Ranks against those of the float32 master at the same step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.quantization.surgery import quantize_model


def effective(matrix: Tensor) -> float:
    values = np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def stable(matrix: Tensor) -> float:
    values = np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)
    return float((values**2).sum() / values[0] ** 2)


@pytest.fixture
def outlier(load_format: Callable[..., Format]) -> nn.Module:
    """A layer whose one large entry leaves nothing of the others on its grid, and a healthy one.

    Under amax 1 the gaps of e0m7 are 1/64, so entries of ±0.007 round to zero: the master has
    effective rank near 170, its rounding has rank 1.
    """
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200))
    with torch.no_grad():
        model[0].weight.copy_(0.007 * torch.randn(200, 200).sign())
        model[0].weight[3, 5] = 1.0
    quantize_model(model, load_format("e0m7"))
    return model


def test_the_ratio_is_that_of_two_decompositions(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("rank", relative_to="twin", collapse=0), two_layers("e7m0"))
    metrics = place.step(inputs=torch.randn(2, 6))
    ratios = []
    for name, geometry in place.weights.items():
        weight = geometry.parameter.detach()
        rounded = geometry.value(geometry.rung(weight))
        ratios.append(effective(rounded) / effective(weight))
        found = metrics[f"rank/{name}/effective_rank_ratio"]
        assert found == pytest.approx(ratios[-1], rel=1e-9)
        assert metrics[f"rank/{name}/effective_rank"] == pytest.approx(effective(rounded), rel=1e-9)
    assert metrics["rank/all/effective_rank_ratio"] == pytest.approx(np.mean(ratios), rel=1e-9)
    assert metrics["rank/all/effective_rank_ratio_min"] == pytest.approx(min(ratios), rel=1e-9)
    assert all(ratio != 1 for ratio in ratios)


@pytest.mark.parametrize("estimator", ["gram", "exact", "power"])
def test_a_rank_that_rounding_takes_is_told_at_once_and_once(
    estimator: str, outlier: nn.Module, load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    settings = {"relative_to": "twin", "estimator": estimator, "interval": 1}
    place = bench(load_monitor("rank", **settings), outlier)
    master = outlier[0].weight.detach()
    for step in (1, 2):
        metrics = place.step(step)
    assert [(e.kind, e.layer, e.alert) for e in place.events] == [
        ("rank_collapse", "0.weight", True)
    ]
    told = place.events[0].message
    if estimator == "power":
        assert metrics["rank/0.weight/stable_rank_ratio"] == pytest.approx(
            1 / stable(master), rel=1e-3
        )
        assert told.startswith("below 0.5 of the float32 twin: stable rank 1, twin ")
    else:
        assert metrics["rank/0.weight/effective_rank_ratio"] == pytest.approx(
            1 / effective(master), rel=1e-6
        )
        assert told.startswith("below 0.5 of the float32 twin: effective rank 1, twin ")
    assert metrics[
        "rank/1.weight/" + ("stable" if estimator == "power" else "effective") + "_rank_ratio"
    ] == pytest.approx(1, abs=0.01)


def test_what_training_does_to_both_is_no_collapse(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """A master that becomes rank one falls together with its rounding."""
    for settings, told in (({"relative_to": "twin"}, 0), ({"relative_to": "start"}, 1)):
        place = bench(load_monitor("rank", interval=1, **settings), two_layers("bf16"))
        place.step(
            1,
            change=lambda name, weight: (
                weight[:1].expand_as(weight) if name == "0.weight" else weight
            ),
        )
        place.step(2)
        assert len(place.events) == told


def test_the_vectors_of_both_matrices_survive_a_restart(
    outlier: nn.Module, load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    settings = {"relative_to": "twin", "estimator": "power", "interval": 1, "iterations": 1}
    first = bench(load_monitor("rank", **settings), outlier)
    first.step(1)
    saved = copy.deepcopy(first.panel.state_dict())
    going_on = first.step(2)
    fresh = bench(load_monitor("rank", **settings), outlier)
    assert fresh.step(2) != going_on
    second = bench(load_monitor("rank", **settings), outlier)
    second.panel.load_state_dict(saved)
    assert second.step(2) == going_on
    assert len(first.events) == 1
    assert second.events == []


def test_resident_weights_have_no_twin(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers("e3m4", residency="grid")
    events = bench(load_monitor("rank", relative_to="twin"), model).events
    assert [event.kind for event in events] == ["monitor_failed"]
    assert "'0.weight' lives on its grid and has none (residency: grid)" in events[0].message
    assert "Set relative_to: start" in events[0].message


def test_a_master_has_no_twin_but_itself(load_monitor: Callable[..., Monitor]) -> None:
    with pytest.raises(ValueError, match="needs of: quantized"):
        load_monitor("rank", relative_to="twin", of="master")

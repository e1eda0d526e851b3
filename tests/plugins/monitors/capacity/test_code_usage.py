"""Code usage against a count of torch's own and of searched-for values, and entropies of scipy."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import change_format
from altgrad_plugins.monitors.capacity.code_usage import CODE_COLLAPSE

METRICS = ("used", "entropy", "entropy_ratio")
TABLE = [-1.0, -0.3125, -0.1875, 0.0625, 0.125, 0.4375, 0.875, 1.5]


def grid_of(fmt: Format) -> np.ndarray:
    values = fmt.code_values().double()
    return np.array(sorted(set((values[values.isfinite()] + 0.0).tolist())))


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("name", ["e5m2", "e0m7", "e7m0", "bf16", "table"])
def test_counts_and_entropies_are_those_of_a_search(
    name: str,
    residency: str,
    granularity: Any,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    fmt = load_format(name, values=TABLE) if name == "table" else load_format(name)
    scaling = ScalingSettings(granularity=granularity, block_size=4)
    model = two_layers(fmt, scaling=scaling, residency=residency)
    place, grid = bench(load_monitor("code_usage"), model), grid_of(fmt)
    for geometry in place.weights.values():
        with torch.no_grad():  # a part of the weights is one and the same
            geometry.parameter[:2] = geometry.parameter[2, 0]
    in_grid_units = {}

    def vanish(layer: str, weight: Tensor) -> Tensor:
        """What comes after the forward pass is not what it used."""
        if layer in place.weights:
            scale = place.weights[layer].scale().double()
            in_grid_units[layer] = (weight.double() / scale).flatten().numpy()
        return weight * 0

    metrics = place.step(inputs=torch.randn(3, 6), change=vanish)
    rows = []
    for layer, x in in_grid_units.items():
        counts = Counter(np.abs(grid[:, None] - x).argmin(0).tolist()).values()
        entropy = stats.entropy(list(counts), base=2)
        rows.append((len(counts) / len(grid), entropy, entropy / math.log2(min(len(grid), len(x)))))
        for metric, value in zip(METRICS, rows[-1], strict=True):
            found = metrics[f"code_usage/{layer}/{metric}"]
            assert found == pytest.approx(value, rel=1e-9), metric
    for metric, values in zip(METRICS, zip(*rows, strict=True), strict=True):
        assert metrics[f"code_usage/all/{metric}"] == pytest.approx(np.mean(values), rel=1e-9)
    assert len(metrics) == 3 * 3


def test_every_value_once_is_all_of_the_entropy(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    values = [-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 4.0]
    fmt = load_format("table", values=[*values, 4.0])
    model = two_layers(fmt, scaling=ScalingSettings(mode="frozen"))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(values)[:, None].expand(7, 6))
        model[2].weight.fill_(-3.0)
    metrics = bench(load_monitor("code_usage"), model).step(inputs=torch.ones(1, 6))
    found = [metrics[f"code_usage/0.weight/{metric}"] for metric in METRICS]
    assert found == pytest.approx([1, math.log2(7), 1])
    assert [metrics[f"code_usage/2.weight/{m}"] for m in METRICS] == pytest.approx([1 / 7, 0, 0])


def test_formats_of_more_than_16_bits_are_left_out(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    assert bench(load_monitor("code_usage"), two_layers("fp32")).step() == {}
    model = two_layers("e5m2", overrides=[("0", load_format("fp32"))])
    metrics = bench(load_monitor("code_usage"), model).step()
    assert {name.split("/")[1] for name in metrics} == {"2.weight", "all"}


def test_a_collapse_is_told_once_and_by_layer_over_a_restart(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """An outlier takes the range, and all other weights fall onto the values around zero."""

    def outlier(layer: str) -> Callable[[str, Tensor], Tensor]:
        corner = torch.zeros(1, dtype=torch.long)
        return lambda n, w: w.index_fill(0, corner, 40.0) if n == layer else w

    model: nn.Module = two_layers("e0m7")
    place = bench(load_monitor("code_usage", interval=1), model)
    first = place.step(1, inputs=torch.ones(1, 6), change=outlier("2.weight"))
    assert place.events == []
    for step in (2, 3):
        now = place.step(step, inputs=torch.ones(1, 6))
    (event,) = place.events
    assert (event.kind, event.layer, event.alert) == (CODE_COLLAPSE, "2.weight", True)
    entropies = [m["code_usage/2.weight/entropy"] for m in (now, first)]
    assert entropies[0] < 0.5 * entropies[1]
    assert event.message == (
        f"below 0.5 of the first value: entropy {entropies[0]:.3g} bits, at first {entropies[1]:.3g}"
    )
    place.step(4, inputs=torch.ones(1, 6), change=outlier("0.weight"))
    second = bench(load_monitor("code_usage", interval=1), model)
    second.panel.load_state_dict(copy.deepcopy(place.panel.state_dict()))
    second.step(5, inputs=torch.ones(1, 6))
    assert [event.layer for event in second.events] == ["0.weight"]


def test_what_is_no_collapse(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    """Never with ``collapse: 0``, never from NaN, and never from a move to a smaller format."""
    place = bench(load_monitor("code_usage", interval=1, collapse=0), two_layers("e0m7"))
    place.step(1, inputs=torch.ones(1, 6), change=lambda n, w: w * 0 + 1)
    place.step(2, inputs=torch.ones(1, 6))
    assert place.events == []

    model = two_layers("e0m7")
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    place = bench(load_monitor("code_usage", interval=1), model)
    metrics = place.step(1, inputs=torch.ones(1, 6))
    for metric in METRICS:
        assert math.isnan(metrics[f"code_usage/0.weight/{metric}"])
        assert math.isnan(metrics[f"code_usage/all/{metric}"])
        assert math.isfinite(metrics[f"code_usage/2.weight/{metric}"])
    assert place.events == []

    place = bench(load_monitor("code_usage", interval=1), two_layers("e0m7"))
    place.step(1, inputs=torch.ones(1, 6))
    small = load_format("exmy", exponent_bits=0, mantissa_bits=1)
    change_format(place.weights["0.weight"], small)
    metrics = place.step(2, inputs=torch.ones(1, 6))
    assert metrics["code_usage/0.weight/entropy"] < 2
    assert place.events == []

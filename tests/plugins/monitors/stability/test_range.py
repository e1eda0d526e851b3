"""Dynamic range against numpy in float64, and the sampling against its promise."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_plugins.monitors.stability.dynamic_range import strided

PERCENTILES = {"p0_1": 0.1, "p1": 1.0, "p50": 50.0, "p99": 99.0, "p99_9": 99.9}


def magnitudes(x: Tensor) -> np.ndarray[Any, Any]:
    """Of the finite, non-zero elements."""
    values = x.detach().double().numpy().ravel()
    return np.abs(values[np.isfinite(values) & (values != 0)])


@pytest.mark.parametrize("name", ["e5m2", "e0m7", "bf16", "table"])
@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
def test_every_metric_is_that_of_numpy(
    name: str,
    residency: str,
    granularity: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    values = {"values": [0.0, 0.25, -0.25, 1.0, 3.0, -3.0, 0.5, -0.5]} if name == "table" else {}
    fmt = load_format(name, **values)
    scaling = ScalingSettings(granularity=granularity, block_size=4)  # type: ignore[arg-type]
    place = bench(load_monitor("range"), two_layers(fmt, scaling=scaling, residency=residency))
    inputs = torch.randn(4, 6) * torch.logspace(-3, 0, 6)
    inputs[:, 2] = 0.0  # makes gradients that are exactly zero
    old = {n: w.parameter.detach().clone() for n, w in place.weights.items()}
    scales = {n: w.scale().clone() for n, w in place.weights.items()}
    metrics = place.step(inputs=inputs, change=lambda n, w: w * 2)
    for layer, weight in old.items():
        gradient = place.weights[layer].parameter.grad
        position = weight.double() / scales[layer].double() / fmt.max_finite
        for role, x, base in (("weight", weight, position), ("gradient", gradient, gradient)):
            size = magnitudes(x)
            assert metrics[f"range/{layer}/{role}_amax_ema"] == size.max()
            expected = np.log2(size.max() / size.min())
            assert metrics[f"range/{layer}/{role}_binades"] == pytest.approx(expected, abs=1e-4)
            for label, percent in PERCENTILES.items():
                expected = np.percentile(np.log2(magnitudes(base)), percent)
                found = metrics[f"range/{layer}/{role}_log2_{label}"]
                assert found == pytest.approx(expected, abs=1e-4)
    for metric in ("weight_amax_ema", "gradient_amax_ema", "weight_binades", "gradient_binades"):
        each = [metrics[f"range/{layer}/{metric}"] for layer in old]
        assert metrics[f"range/all/{metric}"] == max(each)
    assert len(metrics) == 2 * 2 * 7 + 4


def test_the_average_forgets_with_its_half_life(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """Uneven distances, a gap, a broken amax; and a restart after every measurement."""

    def build() -> Any:
        monitor = load_monitor("range", interval=4, half_life=5.0)
        return bench(monitor, two_layers(), max_steps=22)

    place = build()
    rng = np.random.default_rng(0)
    expected, last = math.nan, 0
    for step in (1, 4, 8, 12, 16, 20, 22):
        gradient = torch.zeros(7, 6)
        amax = float(np.float32(rng.lognormal()))
        gradient[3, 2], gradient[1, 1] = -amax, math.inf if step == 12 else 0.0
        missing = step == 16
        metrics = place.step(step, gradients={} if missing else {"0.weight": gradient})
        if step not in (12, 16):
            keep = 0.5 ** ((step - last) / 5.0)
            expected = amax if math.isnan(expected) else keep * expected + (1 - keep) * amax
        last = step
        key = "range/0.weight/gradient_amax_ema"
        assert (key in metrics) == (not missing)
        assert missing or metrics[key] == pytest.approx(expected, rel=1e-6)
        file = io.BytesIO()
        torch.save(place.panel.state_dict(), file)
        file.seek(0)
        place = build()
        place.panel.load_state_dict(torch.load(file, weights_only=True))


def test_zeros_and_broken_elements_have_no_place(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("range", interval=1, percentiles=(0, 100)), two_layers("e3m4"))
    some = torch.zeros(7, 6)
    some[0, :4] = torch.tensor([4.0, -0.5, math.nan, math.inf])
    metrics = place.step(gradients={"0.weight": some, "2.weight": torch.zeros(5, 7)})
    assert metrics["range/0.weight/gradient_log2_p0"] == -1
    assert metrics["range/0.weight/gradient_log2_p100"] == 2
    assert math.isnan(metrics["range/0.weight/gradient_binades"])
    for metric in ("gradient_log2_p0", "gradient_binades"):
        assert math.isnan(metrics[f"range/2.weight/{metric}"])
    assert metrics["range/2.weight/gradient_amax_ema"] == 0
    with torch.no_grad():
        place.weights["2.weight"].parameter[0, 0] = math.nan
    metrics = place.step(2)
    assert math.isnan(metrics["range/2.weight/weight_log2_p100"])
    assert metrics["range/0.weight/weight_log2_p100"] <= 0


@pytest.mark.parametrize("shape", [(64, 64), (7, 6), (1, 4097), (1000, 1), (12, 5, 30), (5,)])
@pytest.mark.parametrize("most", [1, 16, 100, 4096])
def test_a_sample_is_small_repeatable_and_leaves_no_column_out(
    shape: tuple[int, ...], most: int
) -> None:
    x = torch.arange(math.prod(shape)).view(shape)
    sample = strided(x, most)
    assert 1 <= len(sample) <= most
    assert torch.equal(sample, strided(x, most))
    if x.numel() <= most:
        assert torch.equal(sample, x.flatten())
    elif most >= 2 * shape[-1]:
        assert len(set((sample % shape[-1]).tolist())) == shape[-1]


def test_percentiles_of_a_sample_are_as_near_as_promised(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    """Ranks in the whole tensor, over many tensors: a hundredth may be further off than promised."""
    model = nn.Linear(300, 200, bias=False)
    quantize_model(model, load_format("e5m2"))
    place = bench(load_monitor("range", interval=1, samples=1024), model)
    torch.manual_seed(4)
    worst = []
    for step in range(1, 201):
        gradient = torch.randn(200, 300) * torch.randn(200, 300).exp()
        metrics = place.step(step, gradients={"weight": gradient})
        size = np.sort(magnitudes(gradient))
        off = []
        for label, percent in PERCENTILES.items():
            value = 2.0 ** metrics[f"range/weight/gradient_log2_{label}"]
            off.append(abs(100 * np.searchsorted(size, value) / len(size) - percent))
        worst.append(max(off))
    promised = 163 / math.sqrt(1024)
    assert np.mean(np.array(worst) > promised) <= 0.01
    assert max(worst) > 1  # a sample, after all


def test_a_layer_without_gradient_has_weight_metrics_only(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    metrics = bench(load_monitor("range"), two_layers()).step()
    assert len(metrics) == 2 * 7 + 2
    assert all("weight_" in name for name in metrics)


@pytest.mark.parametrize(
    ("values", "lowest"),
    [([-2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0, 8.0], 2.0), ([0.0, 1.0, 2.0, 8.0], math.inf)],
)
def test_each_side_of_zero_is_measured_from_its_own_end(
    values: list[float],
    lowest: float,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    place = bench(load_monitor("range"), two_layers(load_format("table", values=values)))
    metrics = place.step(inputs=torch.ones(1, 6))
    for name, geometry in place.weights.items():
        weight = geometry.parameter.detach().double().numpy().ravel() / float(geometry.scale())
        position = np.log2(np.maximum(np.abs(weight) / np.where(weight < 0, lowest, 8.0), 1e-300))
        position = position[position > -900]
        for label, percent in PERCENTILES.items():
            expected = np.percentile(position, percent)
            found = metrics[f"range/{name}/weight_log2_{label}"]
            assert found == pytest.approx(expected, abs=1e-4)

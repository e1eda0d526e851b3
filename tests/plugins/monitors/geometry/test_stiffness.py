"""The stiffness field against a search in float64, and its correlation with gradients against scipy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.settings import ScalingSettings

PERCENTS = (5, 25, 50, 75, 95)


def still(name: str, weight: Tensor) -> Tensor:
    return weight


def least_not_exceeded(values: np.ndarray, percent: int) -> float:
    return float(min(v for v in values if 100 * (values <= v).sum() >= percent * len(values)))


def test_the_field_is_that_of_a_search_in_float64(
    fmt: Format,
    scaling: ScalingSettings,
    residency: str,
    place_of: Callable[..., Any],
    recorder: Any,
    witness: Any,
) -> None:
    grid = witness(fmt)
    record = recorder(place_of("stiffness", fmt, scaling=scaling, residency=residency), still)
    metrics = record.step()
    gaps = record.map(grid.gap, record.before, record.old_scale)
    sizes = {name: len(gap) for name, gap in gaps.items()}
    expected: dict[str, dict[str, float]] = {}
    for name, gap in gaps.items():
        top = max(math.floor(math.log2(g)) for g in gap)
        bins = [max(0, min(15, top - math.floor(math.log2(g)))) for g in gap]
        expected[name] = {
            **{f"log2_q{p:02d}": math.log2(least_not_exceeded(gap, p)) for p in PERCENTS},
            "rms_per_amax": math.sqrt((gap**2).mean()) / np.abs(record.before[name]).max(),
            **{f"binade_{j}": bins.count(j) / len(bins) for j in range(16)},
        }
        assert metrics[f"stiffness/{name}/top_binade"] == top
    for metric in expected["0.weight"]:
        each = [expected[name][metric] for name in gaps]
        weights = list(sizes.values()) if metric.startswith("binade") else [1, 1]
        for name in gaps:
            found = metrics[f"stiffness/{name}/{metric}"]
            assert found == pytest.approx(expected[name][metric], rel=1e-6, abs=1e-6)
        mean = np.average(each, weights=weights)
        assert metrics[f"stiffness/all/{metric}"] == pytest.approx(mean, rel=1e-6, abs=1e-6)
    assert len(metrics) == 3 * (5 + 1 + 1 + 16) + 2
    assert sum(metrics[f"stiffness/all/binade_{j}"] for j in range(16)) == pytest.approx(1)


def test_the_correlation_is_that_of_scipy_and_leaves_out_gradients_of_no_size(
    place_of: Callable[..., Any], load_format: Callable[..., Format], witness: Any
) -> None:
    fmt = load_format("e5m2")
    place = place_of("stiffness", fmt, {"spearman": True})
    torch.manual_seed(5)
    gradients = {n: torch.randn_like(w.parameter) * 1e-3 for n, w in place.weights.items()}
    gradients["0.weight"][0, 0], gradients["0.weight"][1, 2] = 0.0, math.inf
    gradients["2.weight"][3] = math.nan
    metrics = place.step(gradients=gradients)
    grid, each = witness(fmt), []
    for name, geometry in place.weights.items():
        scale = float(geometry.scale())
        gradient = gradients[name].double().flatten().numpy()
        gaps = [grid.gap(w, scale) for w in geometry.parameter.detach().double().flatten().tolist()]
        keep = np.isfinite(gradient) & (gradient != 0)
        assert (~keep).sum() == (2 if name == "0.weight" else 7)
        x, y = np.log2(np.abs(gradient[keep])), np.log2(np.array(gaps)[keep])
        pair = (stats.pearsonr(x, y).statistic, stats.spearmanr(x, y).statistic)
        each.append(pair)
        assert abs(pair[0]) > 1e-3
        for metric, value in zip(("correlation", "spearman"), pair, strict=True):
            found = metrics[f"stiffness/{name}/gradient_{metric}"]
            assert found == pytest.approx(value, rel=1e-5)
    for index, metric in enumerate(("correlation", "spearman")):
        mean = np.mean([pair[index] for pair in each])
        assert metrics[f"stiffness/all/gradient_{metric}"] == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("power", [1.0, -0.5, 3.0])
def test_a_gradient_that_follows_the_stiffness_is_found(
    power: float, place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    place = place_of("stiffness", load_format("e4m3"), {"spearman": True})
    geometry = place.weights["0.weight"]
    gap = geometry.ulp(geometry.parameter.detach())
    metrics = place.step(gradients={"0.weight": -(gap**power)})
    sign = math.copysign(1, power)
    for metric in ("gradient_correlation", "gradient_spearman"):
        assert metrics[f"stiffness/0.weight/{metric}"] == pytest.approx(sign, abs=1e-6)
        assert math.isnan(metrics[f"stiffness/2.weight/{metric}"])  # it has no gradient
        assert metrics[f"stiffness/all/{metric}"] == metrics[f"stiffness/0.weight/{metric}"]


def test_a_uniform_grid_has_one_stiffness_and_no_correlation(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    place = place_of("stiffness", load_format("e0m7"), {"spearman": True})
    metrics = place.step(inputs=torch.randn(4, 6))
    for name, geometry in place.weights.items():
        gap = math.log2(float(geometry.scale()) / 128)
        assert {metrics[f"stiffness/{name}/log2_q{p:02d}"] for p in PERCENTS} == {gap}
        assert metrics[f"stiffness/{name}/binade_0"] == 1
        assert math.isnan(metrics[f"stiffness/{name}/gradient_correlation"])
        assert math.isnan(metrics[f"stiffness/{name}/gradient_spearman"])
    assert math.isnan(metrics["stiffness/all/gradient_correlation"])
    assert metrics["stiffness/all/binade_0"] == 1


def test_e0m7_and_e1m6_have_the_same_field(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    found = [place_of("stiffness", load_format(name)).step() for name in ("e0m7", "e1m6")]
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert value == found[1][name] or math.isnan(value), name


@pytest.mark.parametrize("bins", [1, 3, 16])
def test_the_last_bin_takes_all_that_lies_lower(
    bins: int, place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    place = place_of("stiffness", load_format("e7m0"), {"binades": bins, "layers": ("0.*",)})
    planted = 2.0 ** -torch.arange(42).float().view(7, 6)  # one weight in each binade
    with torch.no_grad():
        place.weights["0.weight"].parameter.copy_(planted)
    metrics = place.step()
    shares = [metrics[f"stiffness/0.weight/binade_{j}"] for j in range(bins)]
    assert shares == pytest.approx([1 / 42] * (bins - 1) + [(43 - bins) / 42])
    assert metrics["stiffness/0.weight/top_binade"] == 0


def test_a_broken_weight_shows_and_a_broken_layer_shows_in_all(
    place_of: Callable[..., Any], load_format: Callable[..., Format]
) -> None:
    for value in (math.nan, math.inf):
        place = place_of("stiffness", load_format("e5m2"))
        with torch.no_grad():
            place.weights["0.weight"].parameter[2, 3] = value
        metrics = place.step(inputs=torch.randn(3, 6))
        for metric in ("log2_q05", "log2_q95", "rms_per_amax", "binade_0", "binade_15"):
            assert math.isnan(metrics[f"stiffness/0.weight/{metric}"])
            assert math.isfinite(metrics[f"stiffness/2.weight/{metric}"])
            assert math.isnan(metrics[f"stiffness/all/{metric}"])

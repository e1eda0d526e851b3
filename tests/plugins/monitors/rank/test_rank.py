"""Ranks against numpy's singular value decompositions in float64."""

from __future__ import annotations

import copy
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
from altgrad_core.testing.monitors import check_monitor
from altgrad_plugins.monitors.rank.spectra import METRICS, from_grams, from_matrices


def witness(matrix: Tensor) -> list[float]:
    """Stable rank, effective rank and spectral norm, by numpy."""
    double = matrix.detach().double().flatten(1).numpy()
    values = np.linalg.svd(double, compute_uv=False)
    stable = (double**2).sum() / values[0] ** 2
    shares = values / values.sum()
    shares = shares[shares > 0]
    effective = np.exp(-(shares * np.log(shares)).sum())
    return [float(stable), float(effective), float(values[0])]


@pytest.fixture(params=[from_grams, from_matrices])
def ranks(request: pytest.FixtureRequest) -> Callable[..., list[list[float]]]:
    """Both estimators, one after the other."""
    measure: Callable[[list[Tensor]], Tensor] = request.param

    def found(*matrices: Tensor) -> list[list[float]]:
        rows: list[list[float]] = measure(list(matrices)).tolist()
        return rows

    return found


Ranks = Callable[..., list[list[float]]]


def test_random_matrices_of_several_shapes_agree_with_svd(ranks: Ranks) -> None:
    torch.manual_seed(0)
    shapes = [(40, 30), (30, 40), (30, 30), (1, 9), (9, 1), (8, 3, 5, 5), (2, 2), (40, 30)]
    matrices = [torch.randn(shape) * 10.0 ** (4 * i - 15) for i, shape in enumerate(shapes)]
    for found, matrix in zip(ranks(*matrices), matrices, strict=True):
        assert found == pytest.approx(witness(matrix), rel=1e-9)


def test_a_decaying_spectrum_agrees_with_svd(ranks: Ranks) -> None:
    torch.manual_seed(0)
    left = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(60, 60, dtype=torch.float64)).Q
    matrix = (left * torch.logspace(0, -6, 60, dtype=torch.float64)) @ right
    assert ranks(matrix)[0] == pytest.approx(witness(matrix), rel=1e-6)


def test_matrices_whose_ranks_are_known(ranks: Ranks) -> None:
    torch.manual_seed(0)
    orthogonal = torch.linalg.qr(torch.randn(24, 24, dtype=torch.float64)).Q
    outer = torch.outer(torch.randn(50).double(), torch.randn(70).double())
    three_of_ten = torch.diag(torch.tensor([2.0, 2.0, 2.0] + [0.0] * 7))
    found = ranks(orthogonal, outer, three_of_ten, torch.eye(5) * 1e-20)
    length = float(outer.norm())
    assert found[0] == pytest.approx([24, 24, 1], rel=1e-12)
    assert found[1] == pytest.approx([1, 1, length], rel=1e-12)
    assert found[2] == pytest.approx([3, 3, 2], rel=1e-12)
    assert found[3] == pytest.approx([5, 5, float(torch.tensor(1e-20))], rel=1e-12)


def test_zero_has_rank_zero_and_broken_matrices_have_none(ranks: Ranks) -> None:
    broken = torch.eye(4)
    broken[1, 2] = math.nan
    endless = torch.eye(4)
    endless[0, 0] = math.inf
    found = ranks(torch.zeros(4, 4), broken, torch.eye(4), endless)
    assert found[0] == [0, 0, 0]
    assert all(math.isnan(value) for index in (1, 3) for value in found[index])
    assert found[2] == pytest.approx([4, 4, 1])


@pytest.mark.parametrize("estimator", ["gram", "exact"])
@pytest.mark.parametrize("of", ["quantized", "master"])
def test_the_matrix_that_the_forward_pass_uses_or_its_master(
    of: str,
    estimator: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    place = bench(load_monitor("rank", of=of, estimator=estimator), two_layers("e5m2"))
    expected = {}
    for name, geometry in place.weights.items():
        weight = geometry.parameter.detach().clone()
        if of == "quantized":  # torch's own e5m2, at the power of two that fits amax
            scale = 2.0 ** math.ceil(math.log2(float(weight.abs().max()) / 57344))
            weight = (weight / scale).to(torch.float8_e5m2).double() * scale
        expected[name] = witness(weight)
    metrics = place.step(inputs=torch.randn(2, 6), change=lambda name, weight: weight * 0 + 1)

    family = "rank" if of == "quantized" else "master_rank"
    for index, metric in enumerate(METRICS):
        values = [row[index] for row in expected.values()]
        for name, value in zip(expected, values, strict=True):
            assert metrics[f"{family}/{name}/{metric}"] == pytest.approx(value, rel=1e-9)
        total = max(values) if metric == "spectral_norm" else np.mean(values)
        assert metrics[f"{family}/all/{metric}"] == pytest.approx(total, rel=1e-9)
        if metric != "spectral_norm":
            assert metrics[f"{family}/all/{metric}_min"] == pytest.approx(min(values), rel=1e-9)
    assert len(metrics) == 2 * 3 + 5


def flatten(layer: str) -> Callable[[str, Tensor], Tensor]:
    """Replaces the weight of ``layer`` by a matrix of rank one."""
    return lambda name, weight: weight[:1].expand_as(weight) if name == layer else weight


def test_a_collapse_is_told_once_and_by_layer(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("rank", interval=1), two_layers())
    place.step(1, change=flatten("2.weight"))
    assert place.events == []
    for step in (2, 3):
        place.step(step)
    assert [(e.kind, e.layer, e.alert) for e in place.events] == [
        ("rank_collapse", "2.weight", True)
    ]
    first = witness(two_layers()[2].weight)[1]
    assert place.events[0].message.startswith("below 0.5 of the first value: ")
    assert "effective rank 1, at first" in place.events[0].message
    told = float(place.events[0].message.rsplit(" ", 1)[1])
    assert told == pytest.approx(first, rel=0.05)
    place.step(4, change=flatten("0.weight"))
    place.step(5)
    assert [event.layer for event in place.events] == ["2.weight", "0.weight"]


def test_collapses_are_judged_across_a_restart_and_not_told_again(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers()
    first = bench(load_monitor("rank", interval=1), model)
    first.step(1, change=flatten("0.weight"))
    first.step(2, change=flatten("2.weight"))
    assert [event.layer for event in first.events] == ["0.weight"]

    second = bench(load_monitor("rank", interval=1), model)
    second.panel.load_state_dict(copy.deepcopy(first.panel.state_dict()))
    second.step(3)
    assert [event.layer for event in second.events] == ["2.weight"]


def test_collapse_zero_never_warns_and_nan_is_no_first_value(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("rank", interval=1, collapse=0), two_layers())
    place.step(1, change=lambda name, weight: weight * 0)
    place.step(2)
    assert place.events == []

    model = two_layers()
    healthy = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    place = bench(load_monitor("rank", interval=1), model)
    metrics = place.step(1, change=lambda n, weight: healthy if n == "0.weight" else weight)
    assert math.isnan(metrics["rank/0.weight/stable_rank"])
    assert math.isnan(metrics["rank/all/stable_rank"])
    assert math.isnan(metrics["rank/all/effective_rank_min"])
    place.step(2, change=flatten("0.weight"))
    place.step(3)
    assert [event.layer for event in place.events] == ["0.weight"]


def test_weights_that_are_no_matrices_are_left_out(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model: nn.Module = two_layers()
    place = bench(load_monitor("rank"), model)

    class Vector:
        parameter = nn.Parameter(torch.ones(3))
        resident = False

    place.run.weights = {**place.weights, "vector": Vector()}
    place.monitor.start(place.run)
    assert place.monitor.layers == ("0.weight", "2.weight")


def test_the_scale_of_every_row_is_taken_into_account(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    scaling = ScalingSettings(granularity="channel")
    model = two_layers("e3m4", scaling=scaling)
    with torch.no_grad():
        model[0].weight.mul_(torch.logspace(-1, 1, 7)[:, None])
    expected = []
    for row in model[0].weight.detach():
        scale = 2.0 ** math.ceil(math.log2(float(row.abs().max()) / 31))
        expected.append(model[0].weight_quantizers["weight"].format.round(row / scale) * scale)
    metrics = bench(load_monitor("rank"), model).step(inputs=torch.randn(2, 6))
    found = [metrics[f"rank/0.weight/{metric}"] for metric in METRICS]
    assert found == pytest.approx(witness(torch.stack(expected)), rel=1e-9)


def test_critical_layers_have_a_limit_of_their_own(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """Both layers lose a third of their effective rank; only the critical one is told of."""
    model = two_layers()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(7, 6))
        model[2].weight.copy_(torch.eye(5, 7))

    def shrink(name: str, weight: Tensor) -> Tensor:
        return weight.index_fill(0, torch.tensor([0, 1]), 0.0) if weight.ndim > 1 else weight

    place = bench(load_monitor("rank", interval=1, critical=("2.*",)), model)
    place.step(1, change=shrink)
    metrics = place.step(2)
    assert metrics["rank/0.weight/effective_rank"] == pytest.approx(4)
    assert metrics["rank/2.weight/effective_rank"] == pytest.approx(3)
    assert [event.layer for event in place.events] == ["2.weight"]
    assert place.events[0].message == ("below 0.8 of the first value: effective rank 3, at first 5")
    lenient = load_monitor("rank", interval=1, critical=("2.*",), critical_collapse=0.5)
    place = bench(lenient, model)
    place.step(1, change=lambda name, weight: weight)
    place.step(2)
    assert place.events == []


def test_critical_patterns_that_match_nothing_are_an_error(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    events = bench(load_monitor("rank", critical=("*attention*",)), two_layers()).events
    assert [event.kind for event in events] == ["monitor_failed"]
    assert "no watched matrix matches critical = ['*attention*']" in events[0].message


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "exact"},
        {"estimator": "power", "collapse": 0},
    ],
)
def test_conformance_of_the_other_estimators(
    settings: dict[str, Any], load_monitor: Callable[..., Monitor]
) -> None:
    check_monitor(load_monitor("rank", interval=2, **settings))

"""The power iteration against numpy's singular values, on easy and on hard matrices."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Monitor
from altgrad_plugins.monitors.rank.power import PowerIteration


def witness(matrix: Tensor) -> tuple[float, float]:
    double = matrix.detach().double().flatten(1).numpy()
    spectral = np.linalg.svd(double, compute_uv=False)[0]
    return float((double**2).sum() / spectral**2), float(spectral)


def spectrum(values: Tensor, rows: int, columns: int) -> Tensor:
    left = torch.linalg.qr(torch.randn(rows, len(values), dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, len(values), dtype=torch.float64)).Q
    return (left * values.double()) @ right.T


def cases() -> dict[str, tuple[Tensor, float]]:
    """Matrices by name, with the relative error of the spectral norm that is allowed."""
    torch.manual_seed(0)
    return {
        "random": (torch.randn(300, 200), 1e-3),
        "wide": (torch.randn(60, 4000), 1e-3),
        "four dimensions": (torch.randn(16, 3, 5, 5), 1e-6),
        "rank one": (torch.outer(torch.randn(50), torch.randn(80)), 1e-7),
        "ill-conditioned": (spectrum(torch.logspace(0, -12, 40), 50, 40), 1e-12),
        "orthogonal": (spectrum(torch.ones(30), 30, 30), 1e-12),
        # The leading two are as close as can be: no power iteration separates them, but the
        # estimate lies between them.
        "no gap": (spectrum(torch.tensor([1.0, 1 - 1e-9, 0.5, 0.1]), 90, 70), 1e-8),
        "outliers": (torch.randn(64, 64) + 30 * torch.eye(64)[:1], 1e-6),
        "huge": (torch.randn(20, 30) * 1e37, 1e-5),
        "tiny": (torch.randn(20, 30) * 1e-37, 1e-5),
        "one row": (torch.randn(1, 9), 1e-12),
    }


@pytest.mark.parametrize("name", list(cases()))
def test_the_error_is_small_from_a_cold_start_and_never_above(name: str) -> None:
    matrix, allowed = cases()[name]
    stable, spectral = PowerIteration(10).measure({name: matrix}, 1)[0].tolist()
    expected_stable, expected = witness(matrix)
    assert expected * (1 - allowed) <= spectral <= expected * (1 + 1e-12)
    assert expected_stable * (1 - 1e-12) <= stable <= expected_stable * (1 + 3 * allowed)


def test_warm_starts_go_on_getting_better_on_a_matrix_that_moves_little() -> None:
    """One iteration per measurement: what is kept is what makes it precise."""
    torch.manual_seed(0)
    matrix = torch.randn(200, 200)
    warm, errors = PowerIteration(1), {}
    for step in range(60):
        matrix = matrix + 1e-4 * torch.randn(200, 200)
        found = float(warm.measure({"a": matrix}, step)[0, 1])
        if step == 0 or step >= 40:  # the witness takes longest
            errors[step] = 1 - found / witness(matrix)[1]
    assert errors.pop(0) > 5e-3
    assert max(errors.values()) < 2e-3
    assert min(errors.values()) > -1e-12


def test_a_leading_direction_that_changes_is_found_again() -> None:
    """The kept vector is orthogonal to the new leading direction, exactly."""
    power = PowerIteration(10)
    power.measure({"a": torch.diag(torch.tensor([4.0, 1.0, 0.0, 0.0]))}, 1)
    found = power.measure({"a": torch.diag(torch.tensor([1.0, 0.5, 0.0, 3.0]))}, 2)
    assert float(found[0, 1]) == pytest.approx(3, rel=1e-6)


def test_zero_and_broken_matrices_harm_no_later_measurement() -> None:
    power, healthy = PowerIteration(10), torch.randn(8, 8)
    broken, endless = healthy.clone(), healthy.clone()
    broken[0, 0], endless[3, 3] = math.nan, math.inf
    assert power.measure({"a": torch.zeros(8, 8)}, 1).tolist() == [[0, 0]]
    for step, matrix in ((2, broken), (3, endless)):
        assert all(map(math.isnan, power.measure({"a": matrix}, step)[0].tolist()))
    found = power.measure({"a": healthy}, 4)[0, 1]
    assert float(found) == pytest.approx(witness(healthy)[1], rel=0.05)
    assert float(power.measure({"a": healthy}, 5)[0, 1]) > 0.99 * witness(healthy)[1]


def test_metrics_of_the_monitor_and_what_survives_a_restart(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers("bf16")
    first = bench(load_monitor("rank", estimator="power", collapse=0, interval=1), model)
    metrics = first.step(1, inputs=torch.randn(2, 6))
    assert {name.split("/")[2] for name in metrics} == {
        "stable_rank",
        "stable_rank_min",
        "spectral_norm",
    }
    for name, geometry in first.weights.items():
        stable, spectral = witness(geometry.parameter.detach().bfloat16())
        assert metrics[f"rank/{name}/spectral_norm"] == pytest.approx(spectral, rel=1e-6)
        assert metrics[f"rank/{name}/stable_rank"] == pytest.approx(stable, rel=1e-6)

    saved = copy.deepcopy(first.panel.state_dict())
    going_on = first.step(2)
    second = bench(load_monitor("rank", estimator="power", collapse=0, interval=1), model)
    second.panel.load_state_dict(saved)
    assert second.step(2) == going_on


@pytest.mark.parametrize(
    "settings",
    [
        {"estimator": "power"},
        {"estimator": "power", "collapse": 0, "critical": ("0.*",)},
    ],
)
def test_collapses_since_the_start_need_an_effective_rank(
    settings: dict[str, Any], load_monitor: Callable[..., Monitor]
) -> None:
    with pytest.raises(ValueError, match="gives no effective rank"):
        load_monitor("rank", **settings)

"""Gradient errors against numpy, with the reference from a plain model in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.testing.monitors import check_monitor

Vector = np.ndarray[Any, Any]


def squared(model: nn.Module, batch: Batch) -> torch.Tensor:
    loss: torch.Tensor = model(batch.tensors["inputs"]).square().mean()
    return loss


def reference(model: nn.Module, inputs: torch.Tensor) -> dict[str, Vector]:
    """Gradients of the same weights in a model that was never quantised, in float64."""
    plain = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    named = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(named[name])
    plain(inputs.double()).square().mean().backward()
    return {n: p.grad.numpy().ravel() for n, p in plain.named_parameters() if p.grad is not None}


def expected(gradient: Vector, against: Vector) -> dict[str, float]:
    cosine = gradient @ against / np.linalg.norm(gradient) / np.linalg.norm(against)
    error = np.linalg.norm(gradient - against) / np.linalg.norm(against)
    # The SNR that is left when the length is put right: by least squares, not by the cosine.
    factor = (gradient @ against) / (against @ against)
    rest = gradient - factor * against
    return {
        "cosine": cosine,
        "relative_error": error,
        "snr": -20 * math.log10(error),
        "aligned_snr": 20 * math.log10(np.linalg.norm(factor * against) / np.linalg.norm(rest)),
        "norm_ratio": np.linalg.norm(gradient) / np.linalg.norm(against),
    }


@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("clip", [1.0, 0.01])
def test_each_layer_and_all_agree_with_a_plain_model(
    residency: str,
    clip: float,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    model = two_layers("e5m2", activation_format=load_format("e5m2"), residency=residency)
    inputs = torch.randn(8, 6)
    plain = copy.deepcopy(model)
    squared(plain, Batch({"inputs": inputs}, 8, 8)).backward()
    gradients = {n: p.grad * clip for n, p in plain.named_parameters()}
    place = bench(load_monitor("gradient_error"), model, loss=squared)
    truth = reference(model, inputs)
    metrics = place.step(inputs=inputs, gradients=gradients)

    layers = list(place.weights)
    own = {n: gradients[n].double().numpy().ravel() for n in layers}
    cases = {n: (own[n], truth[n]) for n in layers}
    cases["all"] = tuple(np.concatenate([pair[i] for pair in cases.values()]) for i in (0, 1))
    for layer, pair in cases.items():
        for metric, value in expected(*pair).items():
            found = metrics[f"gradient_error/{layer}/{metric}"]
            assert found == pytest.approx(value, rel=1e-5), (layer, metric)
    assert len(metrics) == 5 * 3
    assert metrics["gradient_error/all/relative_error"] > 1e-3
    assert metrics["gradient_error/all/cosine"] > 0.9


def test_length_does_not_enter_the_cosine_and_the_aligned_snr(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    inputs, found = torch.randn(8, 6), []
    model = two_layers("e5m2")
    squared(model, Batch({"inputs": inputs}, 8, 8)).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    for factor in (1.0, 1e-6):
        place = bench(load_monitor("gradient_error"), two_layers("e5m2"), loss=squared)
        scaled = {name: gradient * factor for name, gradient in gradients.items()}
        found.append(place.step(inputs=inputs, gradients=scaled))
    first, second = found
    for metric in ("cosine", "aligned_snr"):
        name = f"gradient_error/all/{metric}"
        assert second[name] == pytest.approx(first[name], rel=1e-6)
    assert second["gradient_error/all/norm_ratio"] == pytest.approx(1e-6, rel=0.1)
    assert second["gradient_error/all/relative_error"] == pytest.approx(1, abs=1e-5)
    assert second["gradient_error/all/snr"] == pytest.approx(0, abs=1e-4)


def test_nothing_rounded_is_no_error_and_dropout_draws_the_masks_of_the_step(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    model = nn.Sequential(nn.Linear(6, 40), nn.Dropout(0.5), nn.Linear(40, 5))
    quantize_model(model, load_format("fp32"))
    place = bench(load_monitor("gradient_error", interval=3), model, loss=squared)
    metrics = place.step(3, inputs=torch.randn(8, 6))
    assert metrics["gradient_error/all/relative_error"] == 0
    assert metrics["gradient_error/all/snr"] == math.inf
    assert metrics["gradient_error/all/cosine"] == pytest.approx(1, abs=1e-12)
    assert metrics["gradient_error/all/aligned_snr"] > 140


def test_a_gradient_that_points_away_is_told_once_and_after_a_restart_not_again(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model, inputs = two_layers("bf16"), torch.randn(8, 6)
    squared(model, Batch({"inputs": inputs}, 8, 8)).backward()
    wrong = {"2.weight": -model[2].weight.grad.clone()}
    place = bench(load_monitor("gradient_error", interval=1), model, loss=squared)
    place.step(1, inputs=inputs)
    assert place.events == []
    for step in (2, 3):
        metrics = place.step(step, inputs=inputs, gradients=wrong)
    assert metrics["gradient_error/2.weight/cosine"] == pytest.approx(-1, abs=1e-4)
    assert [(event.kind, event.layer) for event in place.events] == [
        ("gradient_misaligned", "2.weight")
    ]
    assert "is -1, not above 0" in place.events[0].message

    again = bench(load_monitor("gradient_error", interval=1), model, loss=squared)
    again.panel.load_state_dict(copy.deepcopy(place.panel.state_dict()))
    again.step(4, inputs=inputs, gradients=wrong)
    assert again.events == []


def test_zero_and_broken_gradients(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    broken = torch.ones(5, 7)
    broken[0, 0] = math.nan
    place = bench(load_monitor("gradient_error"), two_layers(), loss=squared)
    metrics = place.step(
        inputs=torch.randn(8, 6), gradients={"0.weight": torch.zeros(7, 6), "2.weight": broken}
    )
    assert math.isnan(metrics["gradient_error/0.weight/cosine"])
    assert metrics["gradient_error/0.weight/relative_error"] == 1
    assert metrics["gradient_error/0.weight/norm_ratio"] == 0
    assert all(
        math.isnan(value) for name, value in metrics.items() if "/2.w" in name or "/all/" in name
    )
    assert place.events == []


def test_weights_without_a_gradient_are_left_out(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers()
    model[0].weight.requires_grad_(False)
    metrics = bench(load_monitor("gradient_error"), model).step(inputs=torch.randn(2, 6))
    assert {name.split("/")[1] for name in metrics} == {"2.weight", "all"}
    assert bench(load_monitor("gradient_error"), two_layers()).step() == {}


def test_conformance(load_monitor: Callable[..., Monitor]) -> None:
    check_monitor(load_monitor("gradient_error", interval=3, misaligned=0.99))

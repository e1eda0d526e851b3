"""``madam`` against the paper's formulas in float64, and what follows from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.testing.optimizers import check_optimizer
from altgrad_plugins.optimizers.madam import Madam, MadamPlugin
from altgrad_plugins.optimizers.settings import MadamSettings

LR = 0.01


def build(
    fmt: str = "e5m2", weight: Tensor | None = None, lr: float = LR, **settings: Any
) -> tuple[nn.Linear, Madam]:
    """A layer whose weight is on a grid, and whose bias is not."""
    torch.manual_seed(0)
    model = nn.Linear(20, 30, dtype=None if weight is None else weight.dtype)
    with torch.no_grad():
        model.weight.copy_(torch.randn(30, 20) if weight is None else weight)
    quantize_model(model, load_format(fmt))
    optimizer = MadamPlugin(MadamSettings(**settings)).build(
        [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}],
        {g.parameter: g for g in weight_geometry(model).values()},
        learning_rate=lr,
        generator=torch.Generator(),
    )
    return model, optimizer


def random_grads(count: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Gradients whose size differs from step to step, so that the clipping has work to do."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(30, 20, generator=generator, dtype=dtype) * (1 + number % 3)
        for number in range(count)
    ]


def steps(model: nn.Linear, optimizer: Madam, grads: list[Tensor]) -> None:
    for number, grad in enumerate(grads):
        for group in optimizer.param_groups:
            group["lr"] = LR / (1 + number)
        model.weight.grad = grad.clone()
        optimizer.step()
        assert torch.equal(model.weight.grad, grad)


def reference(
    w: np.ndarray[Any, Any], grads: list[Tensor], decay: float, bound: float, scale: float
) -> tuple[np.ndarray[Any, Any], int, int]:
    """Algorithm 1 of the paper; also how often the bound and the limit were reached."""
    limit = scale * np.sqrt((w**2).mean())
    square, bounded, limited = np.zeros_like(w), 0, 0
    for t, grad in enumerate(grads, 1):
        g = grad.numpy()
        square = decay * square + (1 - decay) * g**2
        normalised = g / np.sqrt(square / (1 - decay**t))
        bounded += int((np.abs(normalised) > bound).sum())
        normalised = np.clip(normalised, -bound, bound)
        w = w * np.exp(-LR / t * np.sign(w) * normalised)
        limited += int((np.abs(w) > limit).sum())
        w = np.clip(w, -limit, limit)
    return w, bounded, limited


@pytest.mark.parametrize("decay", [0.999, 0.9, 0.0])
def test_it_matches_the_paper(decay: float) -> None:
    weight = torch.randn(30, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    settings = {"square_decay": decay, "g_bound": 1.2 if decay else 0.9, "p_scale": 2.0}
    model, optimizer = build(weight=weight, **settings)
    grads = random_grads(6, torch.float64)
    expected, bounded, limited = reference(
        weight.numpy().copy(), grads, decay, settings["g_bound"], settings["p_scale"]
    )
    assert bounded > 50
    assert limited > 6
    steps(model, optimizer, grads)
    np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=1e-12)


def test_the_defaults_are_the_papers_and_float32_is_enough() -> None:
    model, optimizer = build()
    grads = random_grads(6)
    before = model.weight.detach().double().numpy().copy()
    expected, _, _ = reference(before, [g.double() for g in grads], 0.999, 10.0, 3.0)
    steps(model, optimizer, grads)
    np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=2e-6)


def test_a_step_is_a_whole_rung_of_e7m0_at_the_logarithm_of_two() -> None:
    """The rungs of e7m0 are powers of two; the first normalised gradient is ±1."""
    model, optimizer = build("e7m0", lr=math.log(2), p_scale=1e9)
    geometry = optimizer.geometry[model.weight]
    with torch.no_grad():
        model.weight.copy_(geometry.value(geometry.rung(model.weight)))
    model(torch.zeros(1, 20))
    before = geometry.rung(model.weight.detach())
    model.weight.grad = torch.randn(30, 20)
    optimizer.step()
    moved = geometry.rung(model.weight.detach()) - before
    # uphill of the largest weights, the ladder ends
    inside = before.abs() < before.abs().max()
    assert inside.float().mean() > 0.9
    assert torch.equal(moved[inside], -model.weight.grad.sign().int()[inside])


def test_zeros_stay_and_no_weight_changes_its_sign() -> None:
    weight = torch.randn(30, 20)
    weight[0, :5] = 0.0
    model, optimizer = build(weight=weight, lr=3.0)
    for grad in random_grads(20):
        model.weight.grad = grad
        optimizer.step()
    assert torch.equal(model.weight.detach().sign(), weight.sign())
    assert (model.weight.detach() != weight)[weight != 0].float().mean() > 0.99
    model, optimizer = build(weight=torch.zeros(30, 20))
    for grad in random_grads(3):
        model.weight.grad = grad
        optimizer.step()
    assert not model.weight.any()


def test_the_learning_rate_is_relative() -> None:
    """Weights 1024 times as large, with gradients that much smaller, go the same way."""
    ways = []
    for factor in (1.0, 1024.0):
        weight = torch.randn(30, 20, generator=torch.Generator().manual_seed(2))
        model, optimizer = build(weight=weight * factor)
        steps(model, optimizer, [g / factor for g in random_grads(5)])
        assert not torch.equal(model.weight.detach(), weight * factor)
        ways.append(model.weight.detach() / factor)
    assert torch.equal(*ways)


def test_weights_beyond_the_limit_are_cut_but_not_at_a_learning_rate_of_zero() -> None:
    weight = torch.ones(30, 20)
    weight[0, 0] = -30.0
    model, optimizer = build(weight=weight, lr=0.0)
    limit = 3 * float(weight.square().mean().sqrt())
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    assert torch.equal(model.weight.detach(), weight)
    for group in optimizer.param_groups:
        group["lr"] = LR
    optimizer.step()
    assert model.weight[0, 0].item() == pytest.approx(-limit)
    assert limit < 30


def test_parameters_on_no_grid_are_updated_by_adamw_at_a_rate_of_their_own() -> None:
    model, optimizer = build(adamw_rate=0.25, weight_decay=0.1)
    twin = nn.Parameter(model.bias.detach().clone())
    other = torch.optim.AdamW([twin], lr=0.25 * LR, weight_decay=0.0, fused=True)
    for _ in range(3):
        model.bias.grad = torch.randn(model.bias.shape)
        twin.grad = model.bias.grad.clone()
        optimizer.step()
        other.step()
    assert torch.equal(model.bias, twin)
    assert all(group["lr"] == LR for group in optimizer.param_groups)


def test_a_nan_is_not_healed_but_a_weight_without_gradient_stays() -> None:
    model, optimizer = build()
    kept = model.weight.detach().clone()
    model.weight.grad = torch.zeros_like(model.weight)
    model.weight.grad[0, 0] = torch.nan
    optimizer.step()
    assert model.weight[0, 0].isnan()
    limit = optimizer.state[model.weight]["limit"]
    assert torch.equal(model.weight[1:].detach(), kept[1:].clamp(-limit, limit))


@pytest.mark.parametrize(("fmt", "lr"), [("e7m0", 0.01), ("bf16", 0.1)])
def test_it_keeps_the_contract(fmt: str, lr: float) -> None:
    check_optimizer(MadamPlugin(MadamSettings()), fmt=load_format(fmt), learning_rate=lr)


@pytest.mark.parametrize(
    "wrong", [{"square_decay": 1.0}, {"g_bound": 0.0}, {"p_scale": -1.0}, {"adamw_rate": 0.0}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MadamSettings(**wrong)

"""``lion`` against the paper's formulas in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from altgrad_core.registry.build import load_format
from altgrad_core.testing.optimizers import check_optimizer
from altgrad_plugins.optimizers.lion import Lion, LionPlugin
from altgrad_plugins.optimizers.settings import LionSettings

LR = 0.01


def build(params: list[nn.Parameter], **settings: Any) -> Lion:
    return LionPlugin(LionSettings(**settings)).build(
        [{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.0}],
        {},
        learning_rate=LR,
        generator=torch.Generator(),
    )


def start(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes: list[tuple[int, ...]] = [(6, 5), (7,), (3, 2)]
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=dtype)) for s in shapes]


def reference(
    w: np.ndarray[Any, Any],
    grads: list[np.ndarray[Any, Any] | None],
    rates: list[float],
    betas: tuple[float, float],
    decay: float,
) -> np.ndarray[Any, Any]:
    """Algorithm 2 of the paper. A step without a gradient is no step."""
    m = np.zeros_like(w)
    for g, lr in zip(grads, rates, strict=True):
        if g is None:
            continue
        update = np.sign(betas[0] * m + (1 - betas[0]) * g)
        w = w - lr * (update + decay * w)
        m = betas[1] * m + (1 - betas[1]) * g
    return w


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.5, 0.8), (0.0, 0.0)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_it_matches_the_paper(betas: tuple[float, float], decay: float) -> None:
    params = start()
    optimizer = build(params, betas=betas, weight_decay=decay)
    before = [p.detach().numpy().copy() for p in params]
    rates = [LR / (1 + number) for number in range(8)]
    generator = torch.Generator().manual_seed(1)
    grads: list[list[Any]] = [[] for _ in params]
    for number, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for index, parameter in enumerate(params):
            grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            without = (index, number) in ((1, 0), (2, 4))  # a late start, and a pause
            parameter.grad = None if without else grad
            grads[index].append(None if without else grad.numpy().copy())
        optimizer.step()
        for parameter, seen in zip(params, grads, strict=True):
            if parameter.grad is not None:
                assert np.array_equal(parameter.grad.numpy(), seen[-1])
    for index, parameter in enumerate(params):
        expected = reference(
            before[index], grads[index], rates, betas, decay if index == 0 else 0.0
        )
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-13, atol=1e-15)


def test_every_weight_moves_by_the_learning_rate_or_not_at_all() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    optimizer = build([parameter], weight_decay=0.0)
    parameter.grad = torch.tensor([1e-30, -5.0, 0.0, 1e30])
    optimizer.step()
    assert torch.equal(parameter.detach(), LR * torch.tensor([-1.0, 1.0, 0.0, -1.0]))


def test_it_keeps_one_number_per_weight() -> None:
    params = start(torch.float32)
    optimizer = build(params)
    for parameter in params:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in params:
        ((name, kept),) = optimizer.state[parameter].items()
        assert name == "exp_avg"
        assert kept.shape == parameter.shape


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_broken_gradient_shows_in_the_weights(broken: float) -> None:
    params = start()
    optimizer = build(params)
    for parameter in params:
        parameter.grad = torch.full_like(parameter, broken)
    optimizer.step()
    assert all(p.isnan().all() for p in params)


def test_a_closure_is_called_with_gradients_on() -> None:
    params = start()
    optimizer = build(params)
    before = [p.detach().clone() for p in params]

    def closure() -> Tensor:
        loss = sum((p.sin().sum() for p in params), torch.zeros(()))
        loss.backward()
        return loss

    assert torch.is_tensor(optimizer.step(closure))
    assert not any(torch.equal(a, b) for a, b in zip(before, params, strict=True))


@pytest.mark.parametrize(("fmt", "lr"), [("e7m0", 0.003), ("bf16", 0.03)])
def test_it_keeps_the_contract(fmt: str, lr: float) -> None:
    check_optimizer(LionPlugin(LionSettings()), fmt=load_format(fmt), learning_rate=lr)


@pytest.mark.parametrize("wrong", [{"betas": (1.0, 0.9)}, {"weight_decay": -0.1}, {"eps": 1e-8}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LionSettings(**wrong)

"""What holds for every optimizer: copies are whole, and no number is too small for it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.registry.catalog import catalog

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("adamw", {}),
    "adamw foreach": ("adamw", {"implementation": "foreach"}),
    "manifold": ("manifold_adamw", {}),
    "permuted": ("manifold_adamw", {"stiffness": "permuted"}),
    "constant": ("manifold_adamw", {"stiffness": "constant", "site": "post"}),
    "borrowed": ("manifold_adamw", {"stiffness": "borrowed", "borrowed_format": "e5m2"}),
    "textbook": ("manifold_adamw", {"stiffness": "textbook", "normalize": "none"}),
    "grid_optim": ("grid_optim", {}),
    "sgd": ("sgd", {"momentum": 0.9}),
    "sgd permuted": ("sgd", {"momentum": 0.9, "site": "both", "stiffness": "permuted"}),
    "lion": ("lion", {}),
    "madam": ("madam", {}),
}


def build(
    kind: str, fmt: str = "e4m3", scale: float = 1.0, **options: Any
) -> tuple[nn.Linear, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    with torch.no_grad():
        model.weight.mul_(scale)
    quantize_model(model, load_format(fmt), **options)
    name, chosen = KINDS[kind]
    optimizer = (
        catalog()
        .build("optimizer", name, chosen)
        .build(
            [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}],
            {g.parameter: g for g in weight_geometry(model).values()},
            learning_rate=0.01,
            generator=torch.Generator().manual_seed(0),
        )
    )
    return model, optimizer


def step(model: nn.Linear, optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    optimizer.zero_grad()
    model(torch.randn(3, 8, generator=generator)).square().sum().backward()
    optimizer.step()


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def pickled(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize("residency", ["master", "grid"])
def test_a_copy_goes_on_like_the_original_and_belongs_to_the_copied_model(
    kind: str, copied: Callable[[Any], Any], residency: str
) -> None:
    model, optimizer = build(kind, residency=residency)
    torch.optim.lr_scheduler.ConstantLR(optimizer)  # hangs a step of its own onto it
    if residency == "grid":
        keep_on_grid(model, optimizer)
    step(model, optimizer, 1)
    twin, other = copied((model, optimizer))
    if residency == "grid":
        keep_on_grid(twin, other)
    before = weights(model)
    for number in (2, 3):
        step(twin, other, number)
    assert torch.equal(weights(model), before)
    for number in (2, 3):
        step(model, optimizer, number)
    assert torch.equal(weights(model), weights(twin))
    assert not torch.equal(weights(model), before)


def moves(kind: str, fmt: str, size: float, weight_size: float = 1.0) -> Tensor:
    """Where the weight goes under gradients of that size, in units of ``weight_size``."""
    model, optimizer = build(kind, fmt, weight_size)
    draws = torch.Generator().manual_seed(1)
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * (1.0 if kind == "madam" else weight_size)
        group["weight_decay"] = 0.0
    for _ in range(5):
        model(torch.zeros(1, 8))
        model.weight.grad = size * torch.randn(4, 8, generator=draws)
        optimizer.step()
    return model.weight.detach() / weight_size


@pytest.mark.parametrize("kind", ["grid_optim", "madam"])
@settings(max_examples=25, deadline=None)
@given(
    fmt=st.sampled_from(["e0m7", "e4m3", "e5m2"]),
    gradient=st.integers(-100, 100),
    weight=st.integers(-60, 60),
)
def test_the_size_of_gradients_and_weights_has_no_part_in_the_step(
    kind: str, fmt: str, gradient: int, weight: int
) -> None:
    """Both divide it out, so powers of two change nothing: no square may under- or overflow."""
    expected = moves(kind, fmt, 1.0)
    assert torch.equal(moves(kind, fmt, 2.0**gradient), expected)
    assert torch.equal(moves(kind, fmt, 1.0, 2.0**weight), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("fmt", ["e0m7", "e7m0"])  # the narrowest and the widest
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_extreme_weights_stay_finite(kind: str, residency: str, fmt: str, size: float) -> None:
    model, optimizer = build(kind, fmt, size, residency=residency)
    if residency == "grid":
        keep_on_grid(model, optimizer)
    for number in range(12):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(number))
        x[:, 3] = 0
        optimizer.zero_grad()
        loss = (model(x) / max(size, 1.0) - x[:, :4]).square().mean()
        (loss * (0.0 if number < 2 else 1.0)).backward()
        optimizer.step()
        assert bool(weights(model).isfinite().all())

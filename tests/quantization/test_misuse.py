"""What is done wrong with quantised models says so: unkept grids, foreign optimizers, wrong words."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import GridResidency, keep_on_grid
from altgrad_core.quantization.surgery import dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

E4M3 = load_format("e4m3")


def on_grid() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    quantize_model(model, E4M3, residency="grid")
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.ones(3, 4)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_an_optimizer_that_nobody_told_is_stopped_before_it_moves_a_weight() -> None:
    model = on_grid()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(list(model.parameters()))
    with pytest.raises(UserError, match=r"SGD is about to move the 'weight'.*keep_on_grid\(model,"):
        step(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    # others may go on: of other models, and of what does not live on the grid
    other = nn.Linear(4, 4)
    step(other, torch.optim.SGD(other.parameters(), lr=0.1))
    step(model, torch.optim.SGD([model[0].bias], lr=0.1))  # type: ignore[index]
    keep_on_grid(model, optimizer)
    step(model, optimizer)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_needs_a_keeper_of_its_own(copied: Any) -> None:
    model = on_grid()
    keep_on_grid(model, torch.optim.SGD(model.parameters(), lr=0.1))
    twin = copied(model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    with pytest.raises(UserError, match="about to move"):
        step(twin, optimizer)
    keep_on_grid(twin, optimizer)
    step(twin, optimizer)


def test_nobody_is_stopped_once_somebody_sees_to_it_or_it_is_no_grid_any_longer() -> None:
    model = on_grid()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    dequantize_model(model)
    step(model, optimizer)
    quantize_model(model, E4M3, residency="grid")
    keeper = GridResidency(model)
    step(model, optimizer)
    keeper.settle()
    dequantize_model(model)
    quantize_model(model, E4M3)
    keep_on_grid(
        model, optimizer
    )  # masters need nothing, so a loop over residencies may always call it
    step(model, optimizer)


def test_each_of_several_optimizers_is_kept_or_stopped() -> None:
    model = on_grid()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)  # type: ignore[index]
    second = torch.optim.SGD(model[2].parameters(), lr=0.1)  # type: ignore[index]
    end = keep_on_grid(model, first)
    step(model, first)
    with pytest.raises(UserError, match="each of several optimizers"):
        step(model, second)
    keep_on_grid(model, second)
    step(model, second)
    end()
    with pytest.raises(UserError, match="about to move"):
        step(model, first)


class Wrapped(torch.optim.SGD):
    """Takes its steps through another optimizer, as Lookahead, SAM and ZeRO do."""

    def step(self, closure: Any = None) -> None:
        torch.optim.SGD(self.param_groups[0]["params"], lr=0.1).step()


def test_an_optimizer_within_another_that_is_kept_may_move_weights() -> None:
    model = on_grid()
    optimizer = Wrapped(model.parameters(), lr=0.1)
    keep_on_grid(model, optimizer)
    before = copy.deepcopy(list(model.parameters()))
    step(model, optimizer)
    assert not torch.equal(before[0], next(model.parameters()))
    for grid in weight_geometry(model).values():
        assert torch.equal(grid.value(grid.rung(grid.parameter)), grid.parameter)


def test_an_optimizer_of_other_weights_is_refused() -> None:
    model = on_grid()
    for foreign in (nn.Linear(2, 2), copy.deepcopy(model)):
        optimizer = torch.optim.SGD(foreign.parameters(), lr=0.1)
        with pytest.raises(UserError, match="updates none of the model's weights"):
            keep_on_grid(model, optimizer)
        assert not optimizer._optimizer_step_post_hooks
    with pytest.raises(UserError, match="not quantised"):
        keep_on_grid(nn.Linear(2, 2), optimizer)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"residency": "gird"},
            r"residency is 'master' or 'grid', not 'gird'. Did you mean 'grid'",
        ),
        ({"residency": None}, r"residency is 'master' or 'grid', not None"),
        ({"rounding": "stochastik"}, r"rounding is .* not 'stochastik'. Did you mean 'stochastic'"),
    ],
)
def test_a_wrong_word_is_named(words: dict[str, Any], message: str) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(UserError, match=message):
        quantize_model(model, E4M3, **words)
    assert type(model) is nn.Linear

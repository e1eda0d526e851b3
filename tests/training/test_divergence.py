"""The divergence watch counts like a plain loop over floats, and names the place."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from altgrad_core.training.divergence import Diverged, DivergenceWatch, where_nonfinite


def reference(losses: list[float], patience: int) -> tuple[int, int] | None:
    """(stop step, first bad step) by plain counting."""
    first = streak = 0
    for step, loss in enumerate(losses, 1):
        if math.isfinite(loss):
            streak = 0
            continue
        first = step if streak == 0 else first
        streak += 1
        if streak >= patience:
            return step, first
    return None


@given(
    st.lists(st.sampled_from([1.0, math.nan, math.inf, -math.inf]), max_size=30),
    st.integers(1, 5),
    st.integers(0, 30),
)
def test_counts_as_a_plain_loop_does_even_across_a_restart(
    losses: list[float], patience: int, restart: int
) -> None:
    watch = DivergenceWatch(patience, torch.device("cpu"))
    found = None
    for step, loss in enumerate(losses, 1):
        if step == restart:
            state = watch.state_dict()
            watch = DivergenceWatch(patience, torch.device("cpu"))
            watch.load_state_dict(state)
        watch.update(torch.tensor(loss), step)
        try:
            watch.check(step, nn.Linear(1, 1))
        except Diverged as end:
            found = (end.step, end.first_step)
            break
    assert found == reference(losses, patience)


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        ("parameter", "parameter 1.weight"),
        ("gradient", "gradient of 1.weight"),
        ("nothing", "the forward pass (all parameters and gradients are finite)"),
    ],
)
def test_names_the_first_place(plant: str, expected: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    if plant == "parameter":
        model[1].weight.data[0, 1] = math.inf
    elif plant == "gradient":
        assert model[1].weight.grad is not None
        model[1].weight.grad[1, 1] = math.nan
    assert where_nonfinite(model) == expected

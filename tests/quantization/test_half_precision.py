"""Models in 16 bits: products stay in range, and what scaling remembers keeps its dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format


@pytest.mark.parametrize("name", ["e0m7", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_exact_scales_keep_float16_in_range(
    name: str, granularity: Any, inputs: bool, autocast: bool
) -> None:
    torch.manual_seed(0)
    fmt = load_format(name)
    layer, x = nn.Linear(64, 16), torch.randn(8, 64)
    scaling = ScalingSettings(granularity=granularity, power_of_two=False)
    quantize_model(layer, fmt, activation_format=fmt if inputs else None, scaling=scaling)
    expected = layer(x).detach()
    if not autocast:
        layer, x = layer.half(), x.half()
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        y = layer(x)
    y.float().square().mean().backward()
    assert layer.weight.grad is not None
    assert bool(layer.weight.grad.isfinite().all())
    # float16 weights and inputs may round to the other neighbour
    assert float((y.detach().float() - expected).abs().max() / expected.abs().max()) < 0.2


STATES: dict[str, dict[str, Any]] = {
    "delayed": {"scaling": ScalingSettings(mode="delayed", history=2)},
    "frozen": {"scaling": ScalingSettings(mode="frozen")},
    "grid": {"residency": "grid", "compensation": load_format("bf16")},
}
WAYS: dict[str, Callable[[nn.Module], object]] = {
    "half": lambda model: model.half(),
    "to": lambda model: model.to(torch.float16),
    "type": lambda model: model.type(torch.float16),
    "bfloat16": lambda model: model.bfloat16(),
    "double": lambda model: model.double(),
}


def build(state: str) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4))
    e7m0 = load_format("e7m0")  # its scales are about 2^-65, which float16 calls zero
    quantize_model(model, e7m0, activation_format=load_format("e6m1"), **STATES[state])
    model(torch.randn(2, 4))
    return model


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("how", WAYS)
def test_what_scaling_remembers_keeps_its_dtype(state: str, how: str) -> None:
    model = build(state)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert before
    try:
        WAYS[how](model)
    except UserError:
        assert state == "grid"
        assert how in ("half", "to", "type")
        return
    assert model[0].weight.dtype != torch.float32
    for name, buffer in model.named_buffers():
        assert buffer.dtype == before[name].dtype, name
        assert torch.equal(buffer, before[name]), name


@pytest.mark.parametrize("fmt", ["e6m1", "e7m0"])
@pytest.mark.parametrize("how", ["half", "to", "type"])
def test_residents_refuse_a_dtype_that_cannot_hold_their_grid(fmt: str, how: str) -> None:
    layer = nn.Linear(4, 4)
    quantize_model(layer, load_format(fmt), residency="grid")
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(UserError, match=rf"torch\.float16.*{fmt}.*model\.float\(\)"):
        WAYS[how](layer)
    assert {name: value.dtype for name, value in layer.state_dict().items()} == {
        name: value.dtype for name, value in before.items()
    }
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    layer.bfloat16().double().float()
    quantize_model(master := nn.Linear(4, 4), load_format(fmt))
    WAYS[how](master)  # a master is rounded in float32


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_in_another_dtype_is_taken_up_in_the_right_one(assign: bool) -> None:
    model = build("delayed")
    model[0].input_amax_history.fill_(3.0)
    state = {name: value.half() for name, value in model.state_dict().items()}
    twin = build("delayed")
    twin.load_state_dict(state, assign=assign)
    assert twin[0].input_amax_history.dtype == torch.float32
    assert twin[0].input_amax_history.tolist() == [3, 3]


def test_a_users_own_buffer_follows_the_model() -> None:
    model = build("delayed")
    model[0].register_buffer("mask", torch.ones(4))
    assert model.half()[0].mask.dtype == torch.float16

"""Scales per row and per block, frozen and recent ones, headroom; the epilogue for each."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.modules.fake_quant import round_to_grid
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.scaling import Scaler, compact_amax, expanded
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

E4M3, E3M4 = load_format("e4m3"), load_format("e3m4")


def parts_of(x: Tensor, settings: ScalingSettings) -> list[list[tuple[int, ...]]]:
    """By plain loops: the indices that share a scale."""
    if settings.granularity == "tensor":
        return [list(map(tuple, torch.ones_like(x).nonzero().tolist()))]
    width = x.shape[-1]
    size = width if settings.granularity == "channel" else settings.block_size
    rows = torch.ones(x.shape[:-1]).nonzero().tolist()
    return [
        [(*row, column) for column in range(start, min(start + size, width))]
        for row in rows
        for start in range(0, width, size)
    ]


@pytest.mark.parametrize("shape", [(5, 70), (3, 4, 33), (6,), (2, 32)])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
@pytest.mark.parametrize("power_of_two", [True, False])
@pytest.mark.parametrize("headroom", [1.0, 2.5])
def test_each_part_has_the_scale_of_its_own_amax(
    shape: tuple[int, ...], granularity: Any, power_of_two: bool, headroom: float
) -> None:
    settings = ScalingSettings(
        granularity=granularity, power_of_two=power_of_two, headroom=headroom
    )
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).exp() - 1
    module = nn.Module()
    scaler = Scaler(E4M3, settings, "it")
    compact = scaler.scale(module, x)
    wide = expanded(compact, x, settings).expand(x.shape)
    parts = parts_of(x, settings)
    assert compact.numel() == len(parts)
    for part in parts:
        amax = max(abs(float(x[index])) for index in part) * headroom
        (scale,) = {float(wide[index]) for index in part}
        if power_of_two:
            assert scale == 2.0 ** math.ceil(math.log2(amax / 448))
        else:
            assert scale == pytest.approx(amax / 448, rel=1e-6)
    rounded = round_to_grid(x, E4M3, compact, torch.float32, scaling=settings)
    assert torch.equal(rounded.values, E4M3.round(x / wide) * wide)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
@pytest.mark.parametrize("power_of_two", [True, False])
@pytest.mark.parametrize("autocast", [False, True])
def test_products_and_gradients_are_those_of_the_rounded_operands(
    granularity: Any, power_of_two: bool, autocast: bool
) -> None:
    torch.manual_seed(0)
    scaling = ScalingSettings(granularity=granularity, power_of_two=power_of_two)
    layer = nn.Linear(40, 6)
    with torch.no_grad():
        layer.weight.mul_(torch.logspace(-2, 2, 6)[:, None])
    quantize_model(layer, E3M4, activation_format=E4M3, scaling=scaling)
    x = torch.randn(3, 2, 40, requires_grad=True)
    seed = torch.randn(3, 2, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = layer(x)
    y.backward(seed.to(y.dtype))
    (geometry,) = weight_geometry(layer).values()
    weight = (E3M4.round(layer.weight / geometry.scale()) * geometry.scale()).double().detach()
    inputs = x.detach().double()
    s = Scaler(E4M3, ScalingSettings(power_of_two=power_of_two), "x").scale(layer, x)
    inputs = (E4M3.round(x.detach() / s) * s).double()
    assert layer.bias is not None
    assert layer.weight.grad is not None
    assert x.grad is not None
    close = {"rtol": 2e-2, "atol": 2e-2} if autocast else {"rtol": 1e-4, "atol": 1e-4}
    size = float(y.detach().abs().max())
    expected = inputs @ weight.T + layer.bias.double()
    torch.testing.assert_close(y.double() / size, expected / size, **close)
    grad_w = seed.double().flatten(0, 1).T @ inputs.flatten(0, 1)
    torch.testing.assert_close(layer.weight.grad.double(), grad_w, rtol=3e-2, atol=6e-2)
    grad_x = seed.double() @ weight
    scale = float(grad_x.abs().max())
    torch.testing.assert_close(x.grad.double() / scale, grad_x / scale, **close)


def test_the_epilogue_keeps_bfloat16_products_exact_per_row() -> None:
    """A product that is a single grid value is exact in bfloat16: only the scaled y is rounded."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3, bias=False)
    scaling = ScalingSettings(granularity="channel", power_of_two=False)
    quantize_model(layer, E3M4, scaling=scaling)
    x = torch.eye(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    (geometry,) = weight_geometry(layer).values()
    grid = E3M4.round(layer.weight / geometry.scale())
    exact = (x @ grid.T) * geometry.scale().T
    assert torch.equal(y, exact.to(torch.bfloat16))


def test_frozen_scales_are_decided_by_the_first_training_forward() -> None:
    module = nn.Module()
    scaler = Scaler(E3M4, ScalingSettings(mode="frozen"), "it")
    scaler.attach(module, torch.zeros(()))
    assert float(scaler.scale(module, torch.tensor([8.0]))) == 0.5  # a look decides nothing
    assert float(scaler.scale(module, torch.tensor([31.0]), record=True)) == 1.0
    assert float(scaler.scale(module, torch.tensor([1000.0]), record=True)) == 1.0
    assert module.state_dict() == {"it_scale": torch.tensor(1.0)}


def test_recent_takes_the_amax_of_the_step_before() -> None:
    module = nn.Module()
    settings = ScalingSettings(mode="delayed", reduction="recent", power_of_two=False, history=3)
    scaler = Scaler(E3M4, settings, "it")
    scaler.attach(module, torch.zeros(()))
    amaxes = [2.0, 5.0, 1.0, 0.5, 7.0]
    found = [float(scaler.scale(module, torch.tensor([a]), record=True)) * 31 for a in amaxes]
    assert found == pytest.approx([2.0, 2.0, 5.0, 1.0, 0.5])


def test_delayed_scales_per_channel_keep_a_history_for_each() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    scaling = ScalingSettings(mode="delayed", history=4, granularity="channel")
    quantize_model(layer, E3M4, scaling=scaling)
    layer(torch.ones(1, 3))
    history = layer.get_buffer("weight_amax_history")
    assert history.shape == (4, 2, 1)
    assert torch.equal(history[0], compact_amax(layer.weight, scaling))


def test_gradients_at_the_output_are_rounded_for_both_products() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    quantize_model(layer, load_format("bf16"), gradient_format=load_format("e5m2"))
    x = torch.randn(5, 4, requires_grad=True)
    y = layer(x)
    seed = torch.randn(5, 3)
    y.backward(seed)
    scale = Scaler(load_format("e5m2"), ScalingSettings(), "g").scale(layer, seed)
    rounded = load_format("e5m2").round(seed / scale) * scale
    weight = load_format("bf16").round(layer.weight.detach())
    assert layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, rounded.sum(0))
    torch.testing.assert_close(layer.weight.grad, rounded.T @ x.detach())
    torch.testing.assert_close(x.grad, rounded @ weight)
    assert not torch.equal(rounded, seed)
    assert "gradient=e5m2" in repr(layer)


def test_stochastic_gradients_and_weights_draw_from_the_generator_in_training_only() -> None:
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(2)
    layer = nn.Linear(64, 64, bias=False)
    quantize_model(layer, load_format("e3m4"), rounding="stochastic", generator=draws)
    x = torch.eye(64)
    seen = torch.stack([layer(x).detach() for _ in range(200)])
    ulp = next(iter(weight_geometry(layer).values())).ulp(layer.weight.detach())
    error = (seen.mean(0) - layer.weight.detach().T).abs() / ulp.T
    assert float(error.max()) < 6 * 0.5 / math.sqrt(200)
    assert not torch.equal(seen[0], seen[1])
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_what_is_broken_or_zero_decides_no_scale_for_later() -> None:
    module = nn.Module()
    frozen = Scaler(E3M4, ScalingSettings(mode="frozen"), "frozen")
    frozen.attach(module, torch.zeros(()))
    for first in (0.0, math.inf):
        frozen.scale(module, torch.tensor([first]), record=True)
    assert float(frozen.scale(module, torch.tensor([31.0]), record=True)) == 1.0
    delayed = Scaler(E3M4, ScalingSettings(mode="delayed", history=4), "delayed")
    delayed.attach(module, torch.zeros(()))
    seen = [
        float(delayed.scale(module, torch.tensor([amax]), record=True))
        for amax in (31.0, math.inf, 31.0, math.nan, 31.0)
    ]
    assert seen[0] == seen[2] == seen[4] == 1.0
    assert seen[1] == math.inf
    assert math.isnan(seen[3])


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
@pytest.mark.parametrize("residency", ["master", "grid"])
def test_layers_without_weights(shape: tuple[int, int], granularity: Any, residency: Any) -> None:
    layer = nn.Linear(*shape)
    fmt = load_format("e4m3")
    scaling = ScalingSettings(granularity=granularity, block_size=3)
    quantize_model(layer, fmt, activation_format=fmt, residency=residency, scaling=scaling)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    keep_on_grid(layer, optimizer)
    y = layer(torch.ones(2, shape[0]))
    y.sum().backward()
    optimizer.step()
    assert y.shape == (2, shape[1])


@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("fmt", ["e4m3", "bf16"])
def test_shapes_are_found_without_values(residency: Any, fmt: str) -> None:
    layer = nn.Linear(4, 3)
    quantize_model(layer, load_format(fmt), activation_format=E4M3, residency=residency)
    y = layer.to("meta")(torch.empty(2, 4, device="meta"))
    assert y.shape == (2, 3)

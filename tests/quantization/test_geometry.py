"""Rungs, gaps and latent positions against brute force in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.quantization.geometry import (
    ParameterGeometry,
    latent_position,
    scales_of,
    weight_geometry,
)
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

LADDER = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
VALUES = [-1.0, -0.3, -0.2, 0.0, 0.01, 0.011, 0.4, 0.9]


class Listed(Format):
    """A format with nothing but values, unevenly spaced and lopsided."""

    name = "listed"
    bits = 3

    def code_values(self) -> Tensor:
        return torch.tensor(VALUES)


def build(fmt: Format, scaling: ScalingSettings | None = None) -> tuple[nn.Module, WeightGeometry]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 20))
    nn.init.trunc_normal_(model[0].weight, std=0.05)
    quantize_model(model, fmt, scaling=scaling)
    return model, weight_geometry(model)["0.weight"]


def ladder(fmt: Format) -> tuple[Tensor, int]:
    """All values in order, and the index of zero."""
    values = fmt.code_values().double()
    values = values[values.isfinite()].unique()
    return values, int((values == 0).nonzero())


def brute(fmt: Format, weight: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rung, gap and latent position of each element, by search in float64."""
    values, zero = ladder(fmt)
    grid = values * scale
    rungs, gaps, positions = [], [], []
    for w in weight.double().flatten():
        rungs.append(int((grid - w).abs().argmin()) - zero)
        # the gap that w lies in, on the side away from zero where w is a grid value
        low = int((grid <= w if w >= 0 else grid < w).nonzero().max())
        gap = grid[low + 1] - grid[low]
        gaps.append(gap)
        positions.append(low - zero + (w - grid[low]) / gap)
    shape = weight.shape
    return (
        torch.tensor(rungs).reshape(shape),
        torch.stack(gaps).reshape(shape),
        torch.stack(positions).reshape(shape),
    )


@pytest.mark.parametrize("power_of_two", [True, False])
@pytest.mark.parametrize("name", [*LADDER, "listed"])
def test_rung_gap_value_and_position_match_brute_force(name: str, power_of_two: bool) -> None:
    fmt = Listed() if name == "listed" else load_format(name)
    model, geometry = build(fmt, ScalingSettings(power_of_two=power_of_two))
    model(torch.zeros(1, 40))  # fixes the scale
    weight = geometry.parameter.detach() * 0.99  # off the very end, which has no gap beyond
    scale = float(geometry.scale())
    rungs, gaps, positions = brute(fmt, weight, scale)
    assert torch.equal(geometry.rung(weight).long(), rungs)
    torch.testing.assert_close(geometry.ulp(weight).double(), gaps, rtol=1e-6, atol=0)
    found = latent_position(geometry, weight)
    torch.testing.assert_close(found.double(), positions, rtol=2e-5, atol=2e-5)
    values, zero = ladder(fmt)
    torch.testing.assert_close(
        geometry.value(geometry.rung(weight)).double(),
        values[rungs + zero] * scale,
        rtol=1e-7,
        atol=0,
    )


@pytest.mark.parametrize("power_of_two", [True, False])
def test_the_two_uniform_grids_are_one(power_of_two: bool) -> None:
    """e0m7 and e1m6 differ by a factor of four, which the scale takes up: the A/A pair."""
    outputs, weights, rungs, ulps = [], [], [], []
    for name in ("e0m7", "e1m6"):
        model, geometry = build(load_format(name), ScalingSettings(power_of_two=power_of_two))
        x = torch.randn(4, 40, generator=torch.Generator().manual_seed(2))
        outputs.append(model(x))
        rung = geometry.rung(geometry.parameter)
        weights.append(geometry.value(rung))
        rungs.append(rung)
        ulps.append(geometry.ulp(geometry.parameter.detach()))
    for pair in (outputs, weights, rungs, ulps):
        assert torch.equal(*pair)


@pytest.mark.parametrize("name", ["e3m4", "bf16"])
def test_the_scale_is_that_of_the_last_forward(name: str) -> None:
    fmt = load_format(name)
    model, geometry = build(fmt)
    x = torch.randn(1, 40)
    before_any_forward = geometry.scale().clone()
    model(x)
    assert geometry.scale() == before_any_forward
    with torch.no_grad():
        geometry.parameter.mul_(8)
    assert geometry.scale() == before_any_forward
    old = geometry.rung(geometry.parameter)
    model(x)
    assert geometry.scale() == before_any_forward * (8 if fmt.scaled else 1)
    assert (geometry.rung(geometry.parameter) == old).all() != fmt.scaled


def test_positions_are_rungs_on_grid_values_and_halves_between() -> None:
    fmt = load_format("e3m4")
    _, geometry = build(fmt)
    k = torch.arange(-100, 101)
    values = geometry.value(k)
    assert torch.equal(latent_position(geometry, values), k.float())
    middle = (values[1:] + values[:-1]) / 2
    assert torch.equal(latent_position(geometry, middle), k[:-1] + 0.5)
    half = torch.linspace(0, 0.2, 2501)
    fine = torch.cat([-half.flip(0)[:-1], half])
    positions = latent_position(geometry, fine)
    assert (positions.diff() > 0).all()
    torch.testing.assert_close(positions, -positions.flip(0))


def test_positions_of_fp32_are_its_rungs_exactly() -> None:
    fmt = load_format("fp32")
    _, geometry = build(fmt)
    weight = geometry.parameter.detach()
    position = latent_position(geometry, weight)
    assert position.dtype == torch.float64
    assert torch.equal(position, geometry.rung(weight).double())


def test_names_order_and_sharing() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "embed": nn.Embedding(8, 8),
            "attention": nn.MultiheadAttention(8, 2),
            "head": nn.Linear(8, 8),
            "plain": nn.Linear(8, 2),
        }
    )
    model["head"].weight = model["embed"].weight
    quantize_model(model, load_format("e5m2"), overrides=[("plain", None)])
    geometry = weight_geometry(model)
    assert list(geometry) == [
        "embed.weight",
        "attention.in_proj_weight",
        "attention.out_proj.weight",
    ]
    for name, one in geometry.items():
        assert one.name == name
        assert one.parameter is model.get_parameter(name)
        assert one.format.name == "e5m2"
    assert not weight_geometry(nn.Linear(2, 2))


@pytest.mark.parametrize("mode", ["current", "delayed", "frozen"])
def test_a_forward_with_other_weights_does_not_change_the_scale(mode: Any) -> None:
    layer = nn.Linear(4, 4, bias=False)
    quantize_model(layer, load_format("e5m2"), scaling=ScalingSettings(mode=mode, history=2))
    geometry = weight_geometry(layer)["weight"]
    x = torch.randn(2, 4)
    layer(x)
    with torch.no_grad():
        layer.weight.mul_(16)
    layer(x)
    scale = geometry.scale().clone()
    layer.eval()
    averaged = {"weight": nn.Parameter(64 * layer.weight.detach())}
    torch.func.functional_call(layer, averaged, (x,))
    layer.train()
    assert torch.equal(geometry.scale(), scale)


def some_of_each_kind() -> list[ParameterGeometry]:
    """Weights that kernels look at together, between such as they do not, and masters."""
    torch.manual_seed(0)
    found: list[ParameterGeometry] = []
    kinds: list[dict[str, Any]] = [
        {"fmt": "e5m2", "residency": "grid"},
        {"fmt": "e4m3", "residency": "grid", "scaling": ScalingSettings(granularity="block")},
        {"fmt": "e4m3"},
        {"fmt": "e3m4", "residency": "grid", "scaling": ScalingSettings(granularity="channel")},
        {"fmt": "bf16", "residency": "grid"},
        {"fmt": "e7m0", "residency": "grid", "rounding": "stochastic"},
        {"fmt": "e4m3", "residency": "grid", "scaling": ScalingSettings(headroom=1.3)},
    ]
    for options in kinds:
        layer = nn.Linear(40, 6, bias=False)
        quantize_model(layer, load_format(options.pop("fmt")), **options)
        found += weight_geometry(layer).values()
    found[-1].parameter.data.mul_(1e3)  # its stored scale is no longer the one in force
    return found


def test_scales_of_many_are_those_of_each() -> None:
    geometries = some_of_each_kind()
    expected = [g.scale() for g in geometries]
    with torch.device("meta"):  # where torch makes tensors unless told
        found = scales_of(geometries)
    for one, own in zip(found, expected, strict=True):
        assert torch.equal(one, own)
    assert found[1].shape == (6, 40)  # as it broadcasts against the weight, not compact


@pytest.mark.parametrize("name", ["e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1"])
@pytest.mark.parametrize("headroom", [1.1, 1.3, 1.5, 3.7])
def test_where_a_scale_begins_to_shrink_is_the_same_for_one_and_for_many(
    name: str, headroom: float
) -> None:
    """A quick look at amax in double must not decide what the rule decides in float32."""
    layer, fmt = nn.Linear(4, 4, bias=False), load_format(name)
    quantize_model(layer, fmt, residency="grid", scaling=ScalingSettings(headroom=headroom))
    (geometry,) = weight_geometry(layer).values()
    stored = float(geometry.scale())
    for turn in (stored * fmt.max_finite / (4 * headroom), stored * fmt.max_finite):
        middle = torch.tensor(turn)
        for end in (-math.inf, math.inf):
            layer.weight.data.zero_()
            layer.weight.data[0, 0] = torch.nextafter(middle, torch.tensor(end))
            assert torch.equal(scales_of([geometry])[0], geometry.scale())
        layer.weight.data[0, 0] = middle
        assert torch.equal(scales_of([geometry])[0], geometry.scale())

"""Fake quantisation against a search in float64; gradients against the identity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.modules.fake_quant import fake_quantize
from altgrad_core.quantization.modules.linear import QuantizedLinear
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

LADDER = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
EXACT = ScalingSettings(power_of_two=False)


def finite_values(fmt: Format) -> Tensor:
    values = fmt.code_values().double()
    return values[values.isfinite()].unique()


def nearest(x: Tensor, fmt: Format, scale: float) -> Tensor:
    """By search; random inputs meet no ties."""
    grid = finite_values(fmt) * scale
    return grid[(x.double().reshape(-1, 1) - grid).abs().argmin(1)].reshape(x.shape)


@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize("scale", [1.0, 2.0**-9, 0.0123])
def test_values_match_a_search(name: str, scale: float) -> None:
    fmt = load_format(name)
    scale = float(torch.tensor(scale))
    x = torch.randn(400, generator=torch.Generator().manual_seed(1)) * fmt.max_finite**0.5 * scale
    found = fake_quantize(x, fmt, scale)
    torch.testing.assert_close(found.double(), nearest(x, fmt, scale), rtol=1e-7, atol=0)


def test_the_gradient_passes_straight_through_saturated_elements_too() -> None:
    fmt = load_format("e4m3")
    x = torch.tensor([0.3, -1e6, 1e6, 0.0], requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    y = fake_quantize(x, fmt)
    assert y.tolist() == [0.3125, -448, 448, 0]
    (y * weights).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == weights.tolist()


class Products(TorchFunctionMode):
    """Records the operands of every matrix product as the kernel gets them."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is nn.functional.linear:
            x, weight = args[:2]
            # autocast casts below this point; what it would change, it changes here
            self.operands.append((x.to(torch.bfloat16), weight.to(torch.bfloat16)))
            assert weight.dtype == torch.bfloat16
        return func(*args, **(kwargs or {}))


def on_grid(x: Tensor, fmt: Format, scale: float) -> bool:
    return bool(torch.isin(x.double(), finite_values(fmt) * scale).all())


@pytest.mark.parametrize("name", LADDER)
@pytest.mark.parametrize("scaling", [ScalingSettings(), EXACT], ids=["power", "exact"])
def test_bfloat16_products_see_exact_grid_values(name: str, scaling: ScalingSettings) -> None:
    fmt = load_format(name)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 16))
    x = torch.randn(8, 32)
    quantize_model(model, fmt, activation_format=fmt, scaling=scaling)
    with Products() as products, torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
    ((inputs, weight),) = products.operands
    quantizer = model[0].weight_quantizers["weight"]
    scale = 2.0 ** math.floor(
        math.log2(float(quantizer.scale(model[0])))
    )  # exact: its power of two
    assert on_grid(weight, fmt, scale)
    assert weight.double().abs().max() == scale * fmt.max_finite or scaling.power_of_two
    assert any(on_grid(inputs, fmt, 2.0**k) for k in range(-80, 20))


@pytest.mark.parametrize("activations", [False, True])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6)])
def test_the_epilogue_gives_the_values_and_gradients_of_the_folded_scale(
    activations: bool, shape: tuple[int, ...]
) -> None:
    """In bfloat16 the scale is applied after the product; in float32 it is part of the weight."""
    fmt = load_format("e3m4")
    results = []
    for autocast in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5))
        quantize_model(model, fmt, activation_format=fmt if activations else None, scaling=EXACT)
        # inputs that bfloat16 holds, so that the only difference is in the rounding of the result
        x = torch.randn(shape).bfloat16().float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            y = model(x)
        y.float().sin().sum().backward()
        results.append((y.float(), x.grad, model[0].weight.grad, model[0].bias.grad))
    for folded, epilogue in zip(*results, strict=True):
        assert folded is not None
        torch.testing.assert_close(
            epilogue, folded, rtol=0.02, atol=0.02 * folded.detach().abs().max().item()
        )


def test_the_epilogue_is_more_exact_than_folding_would_be() -> None:
    """Against float64: grid values times scale, the scale applied once at the end."""
    fmt = load_format("e3m4")
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(256, 64, bias=False))
    weight = model[0].weight.detach()
    x = torch.randn(32, 256).bfloat16()
    quantize_model(model, fmt, scaling=EXACT)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    scale = float(torch.tensor(float(weight.abs().max()) / fmt.max_finite))
    exact = x.double() @ nearest(weight, fmt, scale).mT
    folded = x.double() @ nearest(weight, fmt, scale).bfloat16().double().mT
    error = (y.double() - exact).abs().mean() / exact.abs().mean()
    assert error < 2.0**-8
    assert (folded - exact).abs().mean() / exact.abs().mean() > 2.0**-11


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_other_dtypes_are_rounded_once(dtype: torch.dtype) -> None:
    fmt = load_format("e3m4")
    torch.manual_seed(0)
    layer = nn.Linear(64, 64, dtype=dtype)
    quantize_model(layer, fmt)
    assert isinstance(layer, QuantizedLinear)
    rounded = layer.weight_quantizers["weight"].rounded(layer, dtype)
    scale = float(rounded.scale)
    expected = nearest(layer.weight.detach(), fmt, scale)
    grid = finite_values(fmt) * scale
    distances = (layer.weight.detach().double()[..., None] - grid).abs().sort(-1).values
    tie = distances[..., 0] == distances[..., 1]  # bfloat16 weights do meet ties
    assert tie.float().mean() < 0.5
    assert torch.equal(rounded.values.double()[~tie], expected[~tie])
    layer(torch.randn(3, 64, dtype=dtype)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == dtype

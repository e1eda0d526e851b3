"""Pruning, weight norm and parametrizations that come after the conversion."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from altgrad_core.errors import UserError
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.modules.linear import QuantizedLinear
from altgrad_core.quantization.surgery import dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

E4M3 = load_format("e4m3")


def pruned(module: nn.Module, name: str = "weight") -> None:
    prune.random_unstructured(module, name, 0.5)


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "pruning": pruned,
    "the old weight norm": weight_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_computed_weight_is_rounded(way: str, held: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 8, bias=False)
    quantize_model(layer, E4M3)
    WAYS[way](layer)
    layer.eval()  # spectral norm moves on at every access otherwise
    with hold_weights(layer) if held else torch.enable_grad():
        y = layer(torch.eye(8))
        again = layer(torch.eye(8))
    assert torch.equal(y, again)
    weight: Tensor = layer.weight.detach()
    scale = 2.0 ** torch.ceil(torch.log2(weight.abs().max() / E4M3.max_finite))
    assert torch.equal(y.detach().mT, E4M3.round(weight / scale) * scale)
    y.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())
    assert not weight_geometry(layer)


def test_a_parametrization_is_computed_once_in_a_forward() -> None:
    class Counted(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counted.calls += 1
            return 2 * x

    layer = nn.Linear(8, 8)
    quantize_model(layer, E4M3)
    parametrize.register_parametrization(layer, "weight", Counted())
    Counted.calls = 0
    layer(torch.randn(2, 8))
    assert Counted.calls == 1


def test_pruned_attention_is_rounded_and_keeps_what_pruning_put_there() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, bias=False)
    quantize_model(attention, E4M3)
    pruned(attention, "in_proj_weight")
    x = torch.randn(3, 1, 8)
    y = attention(x, x, x)[0]
    assert torch.equal(attention(x, x, x)[0], y)
    y.sum().backward()
    assert attention.in_proj_weight_orig.grad.count_nonzero() <= 96  # half of them are cut


def test_what_cannot_work_is_said_in_a_sentence() -> None:
    attention = nn.MultiheadAttention(8, 2)
    quantize_model(attention, E4M3)
    parametrizations.spectral_norm(attention, "in_proj_weight")
    x = torch.randn(3, 1, 8)
    with pytest.raises(UserError, match=r"'in_proj_weight' .* has a parametrization"):
        attention(x, x, x)

    resident = nn.Linear(8, 8)
    quantize_model(resident, E4M3, residency="grid")
    pruned(resident)
    with pytest.raises(UserError, match=r"'weight' .* no longer a parameter .* residency: master"):
        resident(x)

    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    quantize_model(model, E4M3)
    parametrizations.spectral_norm(model[1])
    with pytest.raises(UserError, match=r"'1' has a parametrization .*remove_parametrizations"):
        dequantize_model(model)
    assert isinstance(model[0], QuantizedLinear)  # nothing has changed yet
    parametrize.remove_parametrizations(model[1], "weight")
    dequantize_model(model)
    assert type(model[0]) is type(model[1]) is nn.Linear

"""A conversion succeeds as a whole, or leaves everything as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import change_format, quantize_model
from altgrad_core.registry.build import load_format


class Breaks(Format):
    """Fails to round the tensors of one shape."""

    name, bits = "breaks", 2

    def code_values(self) -> Tensor:
        return torch.tensor([0.0, 1.0, -0.0, -1.0])

    def round(self, x: Tensor, *args: Any) -> Tensor:
        if x.shape == (3, 8):
            raise RuntimeError("broken on purpose")
        return super().round(x, *args)


def build(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2)
    return nn.Sequential(attention, nn.Linear(8, 8), nn.Linear(8, 3).to(dtype))


def everything(model: nn.Module) -> list[Any]:
    return [
        [(type(module), sorted(module.__dict__)) for module in model.modules()],
        [id(parameter) for parameter in model.parameters()],
        {name: value.tolist() for name, value in model.state_dict().items()},
    ]


@pytest.mark.parametrize("name", ["e6m1", "e7m0", "bf16", "fp32"])
def test_weights_that_cannot_hold_the_grid_are_refused_by_name(name: str) -> None:
    model = build(torch.float16)
    before = everything(model)
    with pytest.raises(UserError, match=rf"^2 has weights of torch.float16.* {name}"):
        quantize_model(model, load_format(name), residency="grid")
    assert everything(model) == before


def test_so_is_a_compensation_that_they_cannot_hold() -> None:
    model = build(torch.float16)
    before = everything(model)
    options: dict[str, Any] = {"residency": "grid", "compensation": load_format("bf16")}
    with pytest.raises(UserError, match=r"^2 has weights of torch.float16.* bf16"):
        quantize_model(model, load_format("e4m3"), **options)
    assert everything(model) == before


def test_whatever_fails_half_way_is_undone() -> None:
    model = build()
    before = everything(model)
    with pytest.raises(RuntimeError, match="on purpose"):
        quantize_model(model, Breaks(), residency="grid")
    assert everything(model) == before
    quantize_model(model, load_format("e4m3"), residency="grid")


@pytest.mark.parametrize("compensation", [None, load_format("bf16")])
def test_a_format_shift_that_fails_is_undone(compensation: Format | None) -> None:
    model = build()
    e4m3 = load_format("e4m3")
    quantize_model(model, e4m3, residency="grid", compensation=compensation)
    before = everything(model)
    geometry = weight_geometry(model)["2.weight"]
    with pytest.raises(RuntimeError, match="on purpose"):
        change_format(geometry, Breaks())
    assert everything(model) == before
    assert geometry.format is e4m3

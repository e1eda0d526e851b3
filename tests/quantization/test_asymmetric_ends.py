"""Formats that reach further on one side of zero than on the other."""

from __future__ import annotations

import io

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from altgrad_core import keep_on_grid, quantize_model
from altgrad_core.format_card import format_card
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.scaling import Scaler
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_plugins.monitors.stability.ranges import Range


class Whole(Format):
    """The whole numbers from ``low`` to ``high``, in two's complement where that is int8."""

    name, bits = "whole", 8

    def __init__(self, low: int, high: int) -> None:
        self.ends = low, high

    def code_values(self) -> Tensor:
        low, high = self.ends
        above = torch.arange(128.0).clamp(max=high)
        return torch.cat([above, torch.arange(-128.0, 0.0).clamp(min=low)])


INT8 = Whole(-128, 127)


@pytest.mark.parametrize(
    ("low", "high", "headroom"), [(-128, 127, 1), (-127, 50, 1), (-50, 127, 2)]
)
def test_amax_goes_where_both_sides_have_room(low: int, high: int, headroom: float) -> None:
    fmt = Whole(low, high)
    assert fmt.headroom == headroom
    scaler = Scaler(fmt, ScalingSettings(power_of_two=False), "x")
    assert float(scaler.fresh(torch.tensor(3.0))) == pytest.approx(3 * headroom / high)


def test_what_lies_beyond_either_end_is_counted_and_saturates() -> None:
    x = torch.tensor([127.0, 127.5, 128.0, -127.6, -128.0, -128.5, -200.0])
    assert [int(count) for count in Range.of(INT8).counts(x, torch.ones(()))] == [4, 0]
    assert INT8.round(x).tolist() == [127, 127, 127, -128, -128, -128, -128]
    assert INT8.to_rung(x).tolist() == [127, 127, 127, -128, -128, -128, -128]
    assert INT8.encode(x).tolist() == [127, 127, 127, 128, 128, 128, 128]


def test_a_resident_weight_uses_the_longer_end_and_grows_at_the_shorter() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127.0, -127.0]]))
    quantize_model(layer, INT8, residency="grid")
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    keep_on_grid(layer, optimizer)
    (geometry,) = weight_geometry(layer).values()
    for step, weights, scale in [((0, 1), (127, -128), 1.0), ((-1, 0), (128, -128), 2.0)]:
        layer.weight.grad = torch.tensor([step], dtype=torch.float32)
        optimizer.step()
        assert layer.weight.tolist() == [list(weights)]
        assert float(geometry.scale()) == scale


def test_the_card_says_both_ends() -> None:
    console = Console(file=io.StringIO(), width=80, no_color=True)
    console.print(format_card(INT8))
    lines = console.file.getvalue().splitlines()[1:5]
    facts = dict(line.strip().split(maxsplit=1) for line in lines)
    assert facts["lowest"] == "-128"
    assert facts["largest"] == "127"
    assert facts["rungs"] == "-128 to 127"

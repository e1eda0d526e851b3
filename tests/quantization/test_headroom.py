"""Whoever finds a scale puts amax where the format wants it, and not only the scales of a suite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from altgrad_core import load_format, quantize_model
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.scaling import Scaler, own_scale
from altgrad_core.quantization.settings import FormatChoice, ScalingSettings
from altgrad_plugins.optimizers.placebos import Borrowed


def tapered() -> list[float]:
    """The fewer values in a binade, the further it is from 1: 2^-8 to 2^8, 16 values next to 1."""
    above = [
        (1 + m / steps) * 2.0**e
        for e in range(-8, 9)
        for steps in [max(1, 16 >> min(abs(e), 4))]
        for m in range(steps)
    ]
    values = [0.0, *above, *(-v for v in above)]
    return values + [0.0] * (2 ** (len(values) - 1).bit_length() - len(values))


TAPERED = load_format("table", values=tapered())


@pytest.mark.parametrize("fmt", [TAPERED, load_format("e4m3"), load_format("bf16")])
def test_the_scale_of_a_tensor_is_that_of_a_weight_by_default(fmt: Format) -> None:
    assert (fmt.headroom > 16) == (fmt is TAPERED)
    for x in (torch.randn(100), torch.zeros(3), torch.tensor([torch.inf]), torch.tensor([3e38])):
        amax = x.abs().max()
        want = Scaler(fmt, ScalingSettings(), "x").fresh(amax) if fmt.scaled else torch.ones(())
        assert torch.equal(own_scale(x, fmt), want)


def test_what_rounding_took_is_kept_where_the_format_is_precise() -> None:
    layer = nn.Linear(64, 64, bias=False)
    weight = layer.weight.detach().clone()
    quantize_model(layer, load_format("e5m2"), residency="grid", compensation=TAPERED)
    taken = weight - layer.weight.detach()
    (quantizer,) = layer.weight_quantizers.values()
    quantizer.resident.restore(layer)
    lost = (layer.weight.detach() - weight).norm() / taken.norm()
    assert float(lost) < 0.03  # at the end of the range it would be 0.2


def test_a_borrowed_stiffness_is_that_of_a_master_weight() -> None:
    layer = nn.Linear(64, 64, bias=False)
    borrowed = Borrowed(FormatChoice(name="table", settings={"values": tapered()}))
    gaps = borrowed.gaps(layer.weight.detach())
    quantize_model(layer, TAPERED)
    (geometry,) = weight_geometry(layer).values()
    assert torch.equal(gaps, geometry.ulp(layer.weight.detach()))

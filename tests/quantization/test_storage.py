"""Compact storage: a byte for each weight of an 8-bit format, and the same bits back."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels.packing import packed, unpacked
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.storage import compact_state, load_compact_state
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

LADDER = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]


def other(name: str) -> Format:
    if name == "lopsided":
        return load_format("table", values=[float(v) for v in range(-3, 253)])
    e, m = int(name[1]), int(name[3:])
    return load_format("exmy", exponent_bits=e, mantissa_bits=m)


@pytest.mark.parametrize("name", [*LADDER, "e4m5", "e5m10", "e2m1", "lopsided"])
def test_every_grid_value_survives_in_the_smallest_word(name: str) -> None:
    fmt = load_format(name) if name in LADDER else other(name)
    values = fmt.code_values()
    values = values[values.isfinite()]
    words = packed(values, fmt)
    assert words.element_size() == (1 if fmt.bits <= 8 else 2)
    assert torch.equal(unpacked(words, fmt), values)


@pytest.mark.parametrize(("name", "size"), [("bf16", 2), ("fp32", 4)])
def test_wide_formats_are_kept_as_they_are(name: str, size: int) -> None:
    fmt = load_format(name)
    values = fmt.round(torch.randn(100))
    words = packed(values, fmt)
    assert words.element_size() == size
    assert torch.equal(unpacked(words, fmt), values)


def bytes_of(state: dict[str, Any]) -> int:
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
def test_a_checkpoint_has_a_byte_for_each_weight_and_gives_the_same_model(granularity: Any) -> None:
    def build(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False))
        quantize_model(
            model,
            load_format("e4m3"),
            residency="grid",
            compensation=load_format("e5m2"),
            scaling=ScalingSettings(granularity=granularity),
        )
        return model

    model, twin = build(0), build(1)
    state = compact_state(model)
    weights = 2 * 256 * 256
    scales = {"tensor": 0, "channel": 2 * 256 * 8, "block": 2 * 256 * 8 * 8}[granularity]
    assert bytes_of(state) < weights * (1 + 1) + scales + 8000  # codes, and the 8-bit residue
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    load_compact_state(twin, torch.load(file, weights_only=True))
    for (name, one), two in zip(
        model.state_dict().items(), twin.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


def test_weights_that_are_not_finite_are_stored_as_they_are() -> None:
    def build() -> nn.Linear:
        torch.manual_seed(0)
        layer = nn.Linear(3, 3)
        quantize_model(layer, load_format("e0m7"), residency="grid")
        return layer

    layer, twin = build(), build()
    with torch.no_grad():
        layer.weight[0, 1] = torch.nan
    state = compact_state(layer)
    assert isinstance(state["weight"], Tensor)
    load_compact_state(twin, state)
    assert torch.equal(layer.weight.isnan(), twin.weight.isnan())
    assert torch.equal(layer.weight.nan_to_num(), twin.weight.nan_to_num())

"""Which formats have gaps that go by the binade, and that what is found is their ``ulp``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels.binades import Binades, binades
from altgrad_core.registry.build import load_format


def formats() -> list[Format]:
    ladder = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0", "bf16"]
    values = load_format("e4m3").code_values().nan_to_num(0).tolist()
    wide = load_format("exmy", exponent_bits=3, mantissa_bits=6, specials="ieee")
    return [*map(load_format, ladder), wide, load_format("table", values=values)]


@pytest.mark.parametrize("fmt", formats(), ids=lambda fmt: fmt.name)
def test_the_gaps_follow_from_the_exponent_bits(fmt: Format) -> None:
    found = binades(fmt)
    assert found is not None
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 0x7F800001, (100_000,), generator=draw, dtype=torch.int32)
    x = torch.cat(
        [bits.view(torch.float32), torch.zeros(1), fmt.from_rung(torch.arange(-300, 300))]
    )
    exponent = np.frexp(x.abs().double().numpy())[1] - 1
    exponent = np.where(x.isinf() | (x.abs() > fmt.max_finite), found.highest, exponent)
    inside = np.where(x == 0, found.lowest, exponent).clip(found.lowest, found.highest)
    expected = np.exp2(inside - float(found.mantissa_bits))
    for signed in (x, -x):
        assert np.array_equal(fmt.ulp(signed).double().numpy(), expected)


def test_numbers_of_known_formats() -> None:
    assert binades(load_format("e5m2")) == Binades(-14, 15, 2)
    assert binades(load_format("bf16")) == Binades(-126, 127, 7)
    assert binades(load_format("e0m7")) == Binades(0, 0, 7)


@pytest.mark.parametrize(
    "values", [[0, 1, 2, 3.5, -1, -2, -3, 0], [0, 1, 3, 6], [0, 1, 2, 3, 4, 6, 7, 8], [0, 1, 2, -4]]
)
def test_others_have_none(values: list[float]) -> None:
    assert binades(load_format("table", values=values)) is None
    assert binades(load_format("fp32")) is None


@dataclass
class Compared(Format):
    """A dataclass as it comes: compared by its fields, and without a hash."""

    name: str = "compared"
    bits: int = 2

    def code_values(self) -> torch.Tensor:
        return torch.tensor([0.0, 1.0, 2.0, -1.0])


def test_a_format_needs_no_hash() -> None:
    with pytest.raises(TypeError):
        hash(Compared())
    assert binades(Compared()) == Binades(0, 0, 0)

"""Packed positions: every ladder fits, however lopsided, and nothing is lost beyond 1/512 of a rung."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels.position import pack, unpack
from altgrad_core.registry.build import load_format


class Ladder(Format):
    """Equally spaced values, ``below`` of them negative and ``above`` positive."""

    name = "ladder"

    def __init__(self, below: int, above: int, bits: int) -> None:
        self.bits = bits
        self._values = torch.arange(-below, above + 1).float()

    def code_values(self) -> Tensor:
        spare = 2**self.bits - len(self._values)
        return torch.cat((self._values, self._values[-1:].expand(spare)))


@pytest.mark.parametrize(
    ("below", "above", "bits", "size"),
    [
        (127, 127, 8, 2),
        (0, 255, 8, 4),
        (200, 55, 8, 4),
        (128, 127, 8, 4),
        (0, 127, 8, 2),
        (0, 15, 4, 2),
        (700, 300, 10, 4),
        (0, 65535, 16, 4),
    ],
)
def test_every_position_on_the_ladder_comes_back(
    below: int, above: int, bits: int, size: int
) -> None:
    fmt = Ladder(below, above, bits)
    torch.manual_seed(0)
    inside = torch.rand(4000, dtype=torch.float64) * (below + above) - below
    position = torch.cat((inside, torch.tensor([-below - 0.5, -below, 0.0, above, above + 0.5])))
    packed = pack(position, fmt)
    assert packed.element_size() == size
    assert (unpack(packed, fmt).double() - position).abs().max() <= 1 / 512 + 1e-9


@pytest.mark.parametrize("name", ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"])
def test_the_ladder_of_8_bits_takes_2_bytes(name: str) -> None:
    assert pack(torch.zeros(1), load_format(name)).dtype == torch.int16


def test_rungs_of_fp32_are_kept_whole() -> None:
    fmt = load_format("fp32")
    rungs = fmt.to_rung(torch.tensor([-torch.inf, -1.0, 0.0, 1e-45, 3.0, torch.inf])).double()
    assert torch.equal(unpack(pack(rungs, fmt), fmt), rungs)

"""Float32 on which kernels are compared with the reference, bit for bit, and the formats that they round to."""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core import load_format
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels import rounding
from altgrad_core.quantization.kernels.numbers import GridNumbers

LADDER = ("e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0")
CASES = [(name, "saturate") for name in LADDER] + [("e4m3", "special"), ("e5m2", "special")]
BF16 = [("bf16", "saturate"), ("bf16", "special")]


def every_upper_half() -> Tensor:
    """All 2^16 patterns of a float32's upper half, and 1 ulp around them and around their midpoints."""
    upper = torch.arange(2**16, dtype=torch.int64) << 16
    bits = torch.cat([upper + offset for offset in (0, 1, -1, 2**15, 2**15 + 1, 2**15 - 1)])
    return torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(torch.float32)


PATTERNS = every_upper_half()


def around_boundaries(numbers: GridNumbers) -> Tensor:
    """Grid values and midpoints of the whole ladder, and the float32 on each side of them."""
    tops = rounding.rungs(torch.tensor([torch.inf]), numbers)
    count = min(int(tops), 2**12)
    values = rounding.values(torch.arange(count + 1), numbers).double()
    exact = torch.cat([values, (values[1:] + values[:-1]) / 2]).float()
    up, down = (torch.nextafter(exact, torch.tensor(end)) for end in (torch.inf, -torch.inf))
    sides = torch.cat([exact, up, down])
    return torch.cat([sides, -sides])


def agree(found: Tensor, expected: Tensor) -> bool:
    """Equal to the last bit; any NaN is a NaN."""
    same = found.view(torch.int32) == expected.view(torch.int32)
    return bool((same | (found.isnan() & expected.isnan())).all())


def format_of(name: str, overflow: str) -> Format:
    settings = {"overflow": overflow} if name in ("e4m3", "e5m2", "bf16") else {}
    return load_format(name, **settings)


def numbers_of(name: str, overflow: str) -> GridNumbers:
    found: GridNumbers = format_of(name, overflow).numbers  # type: ignore[attr-defined]
    return found

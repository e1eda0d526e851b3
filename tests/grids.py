"""Formats that are tables of values, of every kind, and the float32 on which ways to round to them are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core import load_format
from altgrad_core.interfaces.format import Format

NF4 = [
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941),
    *(0.7229568362236023, 1.0),
]


def posit8() -> list[float]:
    """The values of 8-bit posits with two exponent bits, by their definition."""
    values = [0.0, float("nan")]
    for code in range(1, 128):
        bits = f"{code:07b}"
        run = len(bits) - len(bits.lstrip(bits[0]))
        regime = run - 1 if bits[0] == "1" else -run
        rest = bits[run + 1 :]
        exponent = int((rest[:2] + "00")[:2], 2)
        fraction = int(rest[2:] or "0", 2) / 2 ** len(rest[2:])
        size = (1 + fraction) * 2.0 ** (4 * regime + exponent)
        values += [size, -size]
    return values


class Ruled(Format):
    """Rounds by thresholds of its own; some leave an end all that lies between."""

    name, bits = "ruled", 3

    def code_values(self) -> Tensor:
        return torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 7.0])

    def thresholds(self) -> Tensor:
        return torch.tensor([-1.9, -0.5, -0.5, 0.0, 0.75, 1.0, 4.0], dtype=torch.float64)


GRIDS = {
    "nf4": lambda: load_format("table", values=NF4),
    "posit8": lambda: load_format("table", values=posit8()),
    "e5m2": lambda: load_format("table", values=load_format("e5m2").code_values().tolist()),
    "e0m7": lambda: load_format("table", values=load_format("e0m7").code_values().tolist()),
    "no zero": lambda: load_format("table", values=[-3.0, -0.125, 0.25, 5.0]),
    "positive": lambda: load_format("table", values=[0.0, 1.0, 1.5, 2.0**127]),
    "tiny": lambda: load_format("table", values=[-0.0, 2.0**-147, -(2.0**-149), 2.0**-126]),
    "two": lambda: load_format("table", values=[0.0, 1.0]),
    "thresholds": Ruled,
}


def trials(fmt: Format) -> Tensor:
    """Floats of every upper half, the first, last and a few others of each; and all switches, with neighbours."""
    upper = torch.arange(2**16, dtype=torch.int64) << 16
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    bits = (upper[:, None] | lower).flatten()
    bits = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32)
    some = torch.linspace(-8, 8, 100_003)
    return torch.cat((bits.view(torch.float32), switches_and_values(fmt), some))


def switches_and_values(fmt: Format) -> Tensor:
    """Where a format switches, what it switches to, and the float32 on each side of them."""
    tables = fmt._grid.tables(torch.device("cpu"), torch.float32)
    points = torch.cat((tables.values, tables.switches))
    return torch.cat(
        [points, *(points.nextafter(torch.tensor(s)) for s in (torch.inf, -torch.inf))]
    )

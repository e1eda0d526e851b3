"""Rounding by the compiled table is rounding by the search, bit for bit, for every kind of grid."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from altgrad_core import load_format
from altgrad_core.interfaces import compiled_grid, format
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
    tables = fmt._grid.tables(torch.device("cpu"), torch.float32)
    points = torch.cat((tables.values, tables.switches))
    around = [
        points,
        points.nextafter(torch.tensor(torch.inf)),
        points.nextafter(-torch.tensor(torch.inf)),
    ]
    return torch.cat((bits.view(torch.float32), *around, torch.linspace(-8, 8, 100_003)))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_the_table_gives_the_bits_of_the_search(
    name: str, rounding: format.Rounding, monkeypatch: pytest.MonkeyPatch
) -> None:
    fmt = GRIDS[name]()
    x = trials(fmt)
    draws = [torch.Generator().manual_seed(7) for _ in range(3)]
    found = compiled_grid.round_by_table(
        fmt._grid, x, draws[0] if rounding == "stochastic" else None, None
    )
    assert found is not None
    assert torch.equal(found.view(torch.int32), fmt.round(x, rounding, draws[1]).view(torch.int32))
    monkeypatch.setattr(format, "backend_for", lambda x: "eager")
    want = fmt.round(x, rounding, draws[2])
    assert torch.equal(found.view(torch.int32), want.view(torch.int32))
    assert len({str(draw.get_state().tolist()) for draw in draws}) == 1


def test_a_grid_that_is_too_fine_is_searched() -> None:
    fmt = load_format("table", values=[0.0, *(1 + 2.0**-10 * torch.arange(1023)).tolist()])
    x = torch.linspace(0.9, 2.1, 1001)
    assert compiled_grid.round_by_table(fmt._grid, x, None, None) is None
    assert compiled_grid.round_by_table(fmt._grid, x, torch.Generator(), None) is None
    nearest = fmt.round(x)
    best = (fmt._grid.values(x.device)[None] - x[:, None]).abs().amin(1)
    assert torch.equal((nearest - x).abs(), best)


def test_views_and_other_dtypes_are_rounded_as_values() -> None:
    fmt = load_format("table", values=NF4)
    x = torch.linspace(-1, 1, 30).view(5, 6)
    assert torch.equal(fmt.round(x.t()), fmt.round(x).t())
    assert torch.equal(fmt.round(torch._neg_view(x)), fmt.round(-x))
    assert torch.equal(load_format("e4m3").round(torch._neg_view(x)), load_format("e4m3").round(-x))
    assert fmt.round(x[:0]).shape == (0, 6)
    assert torch.equal(fmt.round_into(torch.empty(6, 5).t(), x), fmt.round(x))
    leaf = x.clone().requires_grad_()
    assert not fmt.round(leaf).requires_grad
    fine = load_format("table", values=[0.0, 0.25, 0.5, 1.0])
    assert torch.equal(fine.round(x.half()), fine.round(x.half().float()).half())


def test_who_overrides_round_is_heard_when_rounding_into_a_tensor() -> None:
    class Mine(Ruled):
        def round(self, x: Tensor, *_: object, **__: object) -> Tensor:
            return torch.full_like(x, 3.0)

    x = torch.zeros(4)
    assert torch.equal(Mine().round_into(torch.empty(4), x), torch.full((4,), 3.0))


def test_tables_go_with_their_grid() -> None:
    fmt: Format | None = Ruled()
    assert fmt is not None
    fmt.round(torch.zeros(1))
    before = len(compiled_grid._lookups)
    fmt = None
    gc.collect()
    assert len(compiled_grid._lookups) < before

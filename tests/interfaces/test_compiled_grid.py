"""Rounding by the compiled table is rounding by the search, bit for bit, for every kind of grid."""

from __future__ import annotations

import gc

import pytest
import torch
from grids import GRIDS, NF4, Ruled, trials
from patterns import agree
from torch import Tensor

from altgrad_core import load_format
from altgrad_core.interfaces import compiled_grid, format
from altgrad_core.interfaces.format import Format


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_gpu_gives_the_bits_of_the_cpu(name: str, rounding: format.Rounding) -> None:
    fmt = GRIDS[name]()
    x = trials(fmt)

    def rounded(x: Tensor) -> Tensor:
        return fmt.round(x, rounding, torch.Generator().manual_seed(7)).cpu()

    assert agree(rounded(x.cuda()), rounded(x))
    for size in (0.25, 3.7):
        scale = torch.tensor(size)
        for dtype in (torch.float32, torch.bfloat16):
            found = fmt.round_scaled(x.cuda(), scale.cuda(), dtype).cpu()
            assert agree(found.float(), fmt.round_scaled(x, scale, dtype).float())


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

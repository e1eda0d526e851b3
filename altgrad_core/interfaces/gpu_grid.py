"""Rounding to any table of values in Triton, for tensors on a GPU: one launch, no wait.

Sign and exponent of a float32 say where in the table its search begins, and as many halvings as the fullest of these
runs asks for end it. Up to ``_SHARED`` values are searched in shared memory, where the threads of a warp read
each its own place at once; more are read through the caches. Bit-equal to the search in :mod:`.format`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from altgrad_core.interfaces.backend import written
from altgrad_core.interfaces.draws import new_key
from altgrad_core.interfaces.gpu_draws import as_int64, double_draws
from altgrad_core.interfaces.gpu_scaling import at_scale, place_in, put
from altgrad_core.interfaces.grid import Grid, compute_dtype, untransformed
from altgrad_core.interfaces.runs import points_in_runs

_DROPPED = 23
"""Bits of a float32 behind sign and exponent."""
_RUNS = 1 << (32 - _DROPPED)
_SHARED = 2048
_BLOCK, _WARPS = 2048, 8


@triton.jit  # type: ignore[untyped-decorator]
def _entry(table, index, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """``table[index]``: of its first ``SIZE`` entries in shared memory; 0 for any, from where it lies."""
    if SIZE:  # noqa: SIM108
        found = tl.gather(tl.load(table + tl.arange(0, SIZE)), index, 0)
    else:
        found = tl.load(table + index)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _leapt(found, x, points, LEAP: tl.constexpr, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """``found``, and as many more if all these points are no larger than ``x``."""
    return found + tl.where(_entry(points, found + (LEAP - 1), SIZE) <= x, LEAP, 0)


@triton.jit  # type: ignore[untyped-decorator]
def _passed(  # type: ignore[no-untyped-def]
    x, first, points, RUNS: tl.constexpr, HALVINGS: tl.constexpr, SIZE: tl.constexpr
):
    """How many of the ascending points are no larger than ``x``; any number for NaN."""
    run = (x.to(tl.int32, bitcast=True) >> 23) & (RUNS - 1)
    found = _entry(first, run, RUNS)
    for turn in tl.static_range(HALVINGS):
        found = _leapt(found, x, points, 1 << (HALVINGS - 1 - turn), SIZE)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _either(  # type: ignore[no-untyped-def]
    x,
    passed,
    values,
    owners,
    last,
    key,
    OWNED: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One of the two values around ``x``, of which the lower is the last that it has passed; see :mod:`.format`."""
    lower = tl.minimum(tl.maximum(passed - 1, 0), last - 1)
    below, above = _entry(values, lower, SIZE), _entry(values, lower + 1, SIZE)
    inside = tl.minimum(tl.maximum(x, tl.load(values)), tl.load(values + last)).to(tl.float64)
    low, high = below.to(tl.float64), above.to(tl.float64)
    share = (inside - low) / (high - low)
    draw = double_draws(key, tl.program_id(0).to(tl.int64), BLOCK)
    if OWNED:
        owner = _entry(owners, lower, SIZE)
        draw = tl.where(owner > 0, tl.zeros_like(draw), draw)
        draw = tl.where(owner < 0, tl.zeros_like(draw) + 1.0 - 1.1102230246251565e-16, draw)
    return tl.where(draw < share, above, below)


@triton.jit  # type: ignore[untyped-decorator]
def _round(  # type: ignore[no-untyped-def]
    source,
    scale,
    out,
    count,
    first,
    points,
    values,
    owners,
    last,
    key,
    SCALED: tl.constexpr,
    KEEP_INF: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    OWNED: tl.constexpr,
    RUNS: tl.constexpr,
    HALVINGS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i, inside = place_in(count, BLOCK)
    given = tl.load(source + i, mask=inside, other=0.0).to(tl.float32)
    x = at_scale(given, scale, SCALED)
    passed = _passed(x, first, points, RUNS, HALVINGS, SIZE)
    if STOCHASTIC:
        value = _either(x, passed, values, owners, last, key, OWNED, SIZE, BLOCK)
    else:
        value = _entry(values, tl.minimum(passed, last), SIZE)
    zero = (x.to(tl.int32, bitcast=True) & (-2147483648)).to(tl.float32, bitcast=True)
    value = tl.where(value == 0, zero, value)
    value = tl.where(x == x, value, x)
    put(out, i, inside, value, given, scale, SCALED, KEEP_INF)


@dataclass(frozen=True)
class _Search:
    """The tables of a grid on one device, to nearest or stochastically; padded by NaN, which nothing passes.

    first:
        int32, shape ``(512,)``: for each run how many points are no larger than its smallest float.
    points, values, owners:
        shape ``(size,)``, float32 but for the owners (int32).
    """

    first: Tensor
    points: Tensor
    values: Tensor
    owners: Tensor | None
    last: int
    halvings: int

    def arguments(self) -> tuple[Any, ...]:
        owners = self.first if self.owners is None else self.owners
        return self.first, self.points, self.values, owners, self.last

    def constants(self) -> dict[str, Any]:
        size = self.values.numel()
        return {
            "OWNED": self.owners is not None,
            "RUNS": _RUNS,
            "HALVINGS": self.halvings,
            "SIZE": size if size <= _SHARED else 0,
        }


_searches: WeakKeyDictionary[Grid, dict[tuple[torch.device, bool], _Search]] = WeakKeyDictionary()


def round_by_table(
    grid: Grid, x: Tensor, generator: torch.Generator | None, out: Tensor | None
) -> Tensor:
    """``x``, float32 on a GPU, rounded: to nearest, or by the draws of a generator.

    Into ``out`` where kernels can write to it, else a new tensor.
    """
    work = x.contiguous().resolve_neg()
    plain = out is not None and out.dtype == torch.float32 and out.is_contiguous()
    into = out if out is not None and plain and not out.is_neg() else torch.empty_like(work)
    _launch(grid, work, None, into, generator, keep_inf=False)
    if into is out:
        written(into)
    return into


def round_scaled(
    grid: Grid,
    x: Tensor,
    scale: Tensor | None,
    dtype: torch.dtype,
    generator: torch.Generator | None,
    *,
    keep_inf: bool,
) -> Tensor | None:
    """``Format.round_scaled`` in one launch; None for scales other than one float32, and for float64."""
    if scale is not None and (scale.dim() or scale.dtype != torch.float32):
        return None
    if compute_dtype(x) != torch.float32:
        return None
    work = x.detach().contiguous().resolve_neg()
    out = torch.empty_like(work, dtype=dtype)
    _launch(grid, work, scale, out, generator, keep_inf=keep_inf)
    return out


def _launch(
    grid: Grid,
    x: Tensor,
    scale: Tensor | None,
    out: Tensor,
    generator: torch.Generator | None,
    *,
    keep_inf: bool,
) -> None:
    stochastic = generator is not None
    search = _search(grid, x.device, stochastic)
    programs = max(1, -(-x.numel() // _BLOCK))
    key = 0 if generator is None else as_int64(new_key(generator))
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # Triton launches where CUDA is at the moment
        _round[(programs,)](
            x,
            x if scale is None else scale,
            out,
            x.numel(),
            *search.arguments(),
            key,
            SCALED=scale is not None,
            KEEP_INF=keep_inf,
            STOCHASTIC=stochastic,
            **search.constants(),
            BLOCK=_BLOCK,
            num_warps=_WARPS,
        )


def _search(grid: Grid, device: torch.device, stochastic: bool) -> _Search:
    kept = _searches.setdefault(grid, {})
    key = device, stochastic
    if key not in kept:
        with untransformed():
            kept[key] = _made(grid, device, stochastic)
    return kept[key]


def _made(grid: Grid, device: torch.device, stochastic: bool) -> _Search:
    cpu = torch.device("cpu")
    tables = grid.tables(cpu, torch.float32)
    values, owners = tables.values.numpy(), grid.owners(cpu) if stochastic else None
    points = values if stochastic else tables.switches.numpy()
    below, above = points_in_runs(points, _DROPPED)
    halvings = int((above - below).max()).bit_length()
    size = 1 << (len(values) + (1 << halvings) - 1).bit_length()

    def there(table: NDArray[Any], fill: float) -> Tensor:
        padded = np.full(size, fill, table.dtype)
        padded[: len(table)] = table
        return torch.from_numpy(padded).to(device)

    return _Search(
        torch.from_numpy(below.astype(np.int32)).to(device),
        there(points, np.nan),
        there(values, np.nan),
        None if owners is None else there(owners.numpy().astype(np.int32), 0),
        len(values) - 1,
        halvings,
    )

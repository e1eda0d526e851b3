"""Rounding to any table of values, compiled for one CPU core: no search, but a look by the leading bits of a float32.

The floats that share their leading bits are a run of neighbours. Where at most one switch point lies in each run, a
comparison is all that is left to do. As many bits are taken as that needs, so that the table stays in the cache, but
at most 16: for grids that are finer than that, there is none. Bit-equal to the search in :mod:`.format`.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from altgrad_core.interfaces.backend import written
from altgrad_core.interfaces.compiled_draws import fill
from altgrad_core.interfaces.compiling import flat, inlined, kernel, plain
from altgrad_core.interfaces.draws import new_key
from altgrad_core.interfaces.grid import Grid
from altgrad_core.interfaces.runs import points_in_runs, run_ends

_BLOCK = 1 << 13
"""Elements that are drawn for at a time. A multiple of 2."""
_BELOW_ONE = 1 - 2.0**-53
_Floats = NDArray[np.float32]
_Doubles = NDArray[np.float64]
_Ints = NDArray[np.int32]


def round_by_table(
    grid: Grid, x: Tensor, generator: torch.Generator | None, out: Tensor | None
) -> Tensor | None:
    """``x``, float32 on the CPU, rounded: to nearest, or by the draws of a generator. None if there is no table.

    Into ``out`` where kernels can write to it, else a new tensor.
    """
    lookup = _lookups.get(grid)
    if lookup is None:
        lookup = _lookups[grid] = _Lookup(grid)
    work = x.contiguous().resolve_neg()
    into = out if out is not None and plain(out) else torch.empty_like(work)
    if generator is None and lookup.nearest is not None:
        _nearest(flat(work), flat(into), *lookup.nearest)
    elif generator is not None and lookup.stochastic is not None:
        _draw(lookup, lookup.stochastic, work, into, new_key(generator))
    else:
        return None
    if into is out:
        written(into)
    return into


class _Lookup:
    """The tables of one grid, None where it is too fine for them, and its values."""

    def __init__(self, grid: Grid) -> None:
        cpu = torch.device("cpu")
        tables = grid.tables(cpu, torch.float32)
        values, owners = tables.values.numpy(), grid.owners(cpu)
        self.nearest = _nearest_table(values, tables.switches.numpy())
        self.stochastic = _stochastic_table(values)
        self.values = values.astype(np.float64)
        self.owners = np.zeros(len(values), np.int8) if owners is None else owners.numpy()
        self.ends = values[0], values[-1]


_lookups: WeakKeyDictionary[Grid, _Lookup] = WeakKeyDictionary()


def _draw(
    lookup: _Lookup, table: tuple[_Floats, _Ints, int], x: Tensor, out: Tensor, key: int
) -> None:
    drawn = x.new_empty(min(x.numel(), _BLOCK), dtype=torch.float64)
    both = flat(x), flat(out)
    for start in range(0, x.numel(), _BLOCK):
        fill(drawn, key, start)
        parts = (one[start : start + _BLOCK] for one in both)
        _stochastic(*parts, drawn.numpy(), *table, lookup.values, lookup.owners, *lookup.ends)


def _runs(
    points: _Floats, least: int, most: int
) -> tuple[int, _Floats, NDArray[np.intp], NDArray[np.intp]] | None:
    """The fewest leading bits by which floats fall into runs with at most one of ``points`` in each.

    How many bits of a float are dropped; the smallest float of each run; and how many points are no larger than
    its smallest and its largest, between two limits. NaN is put last.
    """
    for dropped in range(23, 15, -1):
        below, above = (at.clip(least, most) for at in points_in_runs(points, dropped))
        if (above - below <= 1).all():
            return dropped, run_ends(dropped)[0], below, above
    return None


def _nearest_table(values: _Floats, switches: _Floats) -> tuple[_Floats, _Floats, int] | None:
    """For each run its switch point (inf for none); the values below and from it on, by turns; the bits dropped."""
    found = _runs(switches, 0, len(switches))
    if found is None:
        return None
    dropped, low, below, above = found
    padded = np.append(switches, np.float32(np.inf))
    cut = np.where(above > below, padded[below], np.float32(np.inf))
    sides = values[np.stack((below, above), axis=1)].ravel()
    sides = np.where(sides == 0, np.copysign(sides, low.repeat(2)), sides)
    return cut, sides, dropped


def _stochastic_table(values: _Floats) -> tuple[_Floats, _Ints, int] | None:
    """For each run the value in it (inf for none), and the position of the one below it; the bits dropped."""
    found = _runs(values, 1, len(values) - 1)
    if found is None:
        return None
    dropped, _, below, above = found
    cut = np.where(above > below, values[above - 1], np.float32(np.inf))
    return cut.astype(np.float32), below.astype(np.int32) - np.int32(1), dropped


@inlined
def _run(x: np.float32, dropped: np.uint32) -> np.uint64:
    return np.uint64(np.float32(x).view(np.uint32) >> dropped)


@kernel("void(float32[::1], float32[::1], float32[::1], float32[::1], uint32)")
def _nearest(x: _Floats, out: _Floats, cut: _Floats, sides: _Floats, dropped: np.uint32) -> None:
    for i in range(x.shape[0]):
        v = x[i]
        run = _run(v, dropped)
        found = sides[
            run + run + np.uint64(v >= cut[run])
        ]  # no branch, which would be guessed wrong
        out[i] = found if v == v else v


@kernel(
    "void(float32[::1], float32[::1], float64[::1], float32[::1], int32[::1], uint32, "
    "float64[::1], int8[::1], float32, float32)"
)
def _stochastic(
    x: _Floats,
    out: _Floats,
    drawn: _Doubles,
    cut: _Floats,
    below: _Ints,
    dropped: np.uint32,
    values: _Doubles,
    owners: NDArray[np.int8],
    smallest: np.float32,
    largest: np.float32,
) -> None:
    for i in range(x.shape[0]):
        v = x[i]
        run = _run(v, dropped)
        lower = np.uint64(below[run]) + np.uint64(v >= cut[run])
        low, high = values[lower], values[lower + np.uint64(1)]
        inside = np.float64(min(max(v, smallest), largest))
        share = (inside - low) / (high - low)
        draw, owner = drawn[i], owners[lower]
        draw = 0.0 if owner > 0 else draw
        draw = _BELOW_ONE if owner < 0 else draw
        found = np.float32(values[lower + np.uint64(draw < share)])
        found = np.float32(np.copysign(found, v)) if found == 0 else found
        out[i] = found if v == v else v

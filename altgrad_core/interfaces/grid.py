"""The grid of a format, worked out once from its code values.

Rounding by table is exact by construction. Between two neighbouring grid values lies a *threshold*,
their midpoint unless the format has a rule of its own, and beside it one *switch point*: the smallest
float of the compute dtype that rounds up, found with integer arithmetic and with the tie rule built
in. Rounding is then a search among the switch points and a gather, where no rounding error can enter.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

COMPUTE_DTYPE = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}
"""The dtype in which an input of each accepted dtype is rounded; every step up is exact."""


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype in which ``x`` is rounded.

    Raises ``TypeError`` for anything but float64, float32, bfloat16 and float16.
    """
    try:
        return COMPUTE_DTYPE[x.dtype]
    except KeyError:
        raise TypeError(
            f"Formats round float64, float32, bfloat16 and float16 tensors, not {x.dtype}. "
            "Convert the tensor first, e.g. with x.float()."
        ) from None


@dataclass(frozen=True)
class GridTables:
    """A grid on one device, in one compute dtype.

    ``values``: the distinct finite values in ascending order, shape ``(n,)``.
    ``switches``: the smallest float that rounds to ``values[i + 1]``, shape ``(n - 1,)``.
    ``gaps``: ``values[i + 1] - values[i]``, shape ``(n - 1,)``.
    """

    values: Tensor
    switches: Tensor
    gaps: Tensor


class Grid:
    """The finite values of a format in order, and the code of each.

    Positions count from 0 at the most negative value; ``rung = position - zero``. A grid without a
    zero has rung 0 at its value of least magnitude (of two, the positive one).

    Raises ``ValueError`` if ``code_values`` is not a float32 tensor of shape ``(2**bits,)`` with at
    least two distinct finite values, one of them positive, or ``thresholds`` is not None and no
    float64 tensor with a number between each two neighbours.
    """

    def __init__(
        self,
        code_values: Tensor,
        bits: int,
        name: str = "format",
        thresholds: Tensor | None = None,
    ) -> None:
        if code_values.shape != (2**bits,) or code_values.dtype != torch.float32:
            raise ValueError(
                f"{name}: code_values() must be a float32 tensor of shape ({2**bits},), one value "
                f"for each code of {bits} bits, but it is {code_values.dtype} of shape "
                f"{tuple(code_values.shape)}."
            )
        table = code_values.detach().cpu().numpy()
        finite = np.flatnonzero(np.isfinite(table))
        values, first = np.unique(table[finite], return_index=True)
        if len(values) < 2 or values[-1] <= 0:
            raise ValueError(
                f"{name}: code_values() needs at least two distinct finite values, one of them "
                f"positive, but its finite values are {values[:8].tolist()}."
            )
        self._values = values + np.float32(0)  # -0 becomes +0: both are one grid value
        # Of several codes with one value the lowest stands for it, and +0 comes before -0.
        codes = finite[first].astype(np.int64)
        zeros = np.flatnonzero(table == 0)
        signs = np.signbit(table[zeros])
        if (~signs).any():
            codes[np.searchsorted(self._values, 0.0)] = zeros[~signs][0]
        self._codes = codes
        # argmin takes the first of equals; reversed, that is the positive one.
        self.zero = len(values) - 1 - int(np.argmin(np.abs(values[::-1])))
        self.negative_zero = int(zeros[signs][0]) if signs.any() else None
        self.nan = _first(np.isnan(table))
        self.inf = {sign: _first(table == sign * np.inf) for sign in (1, -1)}
        self.smallest = float(self._values[0])
        self.largest = float(self._values[-1])
        self.min_positive = float(self._values[self._values > 0][0])
        self._by_code = code_values.detach().cpu()
        self._thresholds = None if thresholds is None else _checked(thresholds, self._values, name)
        self._owners: Tensor | None = None
        if self._thresholds is not None:
            upper = self._thresholds == self._values[:-1]
            owners = upper.astype(np.int8) - (self._thresholds == self._values[1:])
            self._owners = torch.from_numpy(owners) if owners.any() else None
        self._exact: dict[torch.dtype, bool] = {}
        self._tables: dict[tuple[torch.device, torch.dtype], GridTables] = {}
        self._moved: dict[tuple[torch.device, str], Tensor] = {}

    def __len__(self) -> int:
        return len(self._values)

    def tables(self, device: torch.device, dtype: torch.dtype) -> GridTables:
        """The tables for rounding in ``dtype`` (float32 or float64) on ``device``."""
        key = (device, dtype)
        if key not in self._tables:
            with untransformed():
                self._tables[key] = self._build_tables(device, dtype)
        return self._tables[key]

    def _build_tables(self, device: torch.device, dtype: torch.dtype) -> GridTables:
        if device.type != "cpu":
            host = self.tables(torch.device("cpu"), dtype)
            return GridTables(*(t.to(device) for t in (host.values, host.switches, host.gaps)))
        values = torch.from_numpy(self._values).to(dtype)
        points = switch_points(self._values, self._codes, self.zero, dtype, self._thresholds)
        switches = torch.from_numpy(points)
        gaps = torch.from_numpy(np.diff(self._values.astype(np.float64))).to(dtype)
        return GridTables(values, switches, gaps)

    def values(self, device: torch.device) -> Tensor:
        """The distinct finite values in ascending order: float32, shape ``(n,)``."""
        return self._on(device, "values", torch.from_numpy(self._values))

    def codes(self, device: torch.device) -> Tensor:
        """The code of each value of :meth:`values`: int32, shape ``(n,)``."""
        return self._on(device, "codes", torch.from_numpy(self._codes.astype(np.int32)))

    def owners(self, device: torch.device) -> Tensor | None:
        """Of each interval that one of its ends has to itself, which: 1 the upper, -1 the lower, else 0.

        int8, shape ``(n - 1,)``; None where no end has any.
        """
        return None if self._owners is None else self._on(device, "owners", self._owners)

    def by_code(self, device: torch.device) -> Tensor:
        """The value of each code: float32, shape ``(2**bits,)``."""
        return self._on(device, "by_code", self._by_code)

    def exact_in(self, dtype: torch.dtype) -> bool:
        """Whether every finite value is a value of ``dtype``."""
        if dtype not in self._exact:
            values = torch.from_numpy(self._values)
            self._exact[dtype] = bool(torch.equal(values.to(dtype).to(torch.float32), values))
        return self._exact[dtype]

    def _on(self, device: torch.device, what: str, host: Tensor) -> Tensor:
        key = (device, what)
        if key not in self._moved:
            with untransformed():
                self._moved[key] = host.to(device)
        return self._moved[key]


def untransformed() -> AbstractContextManager[object]:
    """Within it, transforms of ``torch.func`` see nothing: what is made to be kept must not be theirs."""
    if torch._C._are_functorch_transforms_active():
        return torch._C._DisableFuncTorch()
    return nullcontext()


def _first(mask: np.ndarray) -> int | None:
    found = np.flatnonzero(mask)
    return int(found[0]) if len(found) else None


def _checked(thresholds: Tensor, values: np.ndarray, name: str) -> np.ndarray:
    if thresholds.shape != (len(values) - 1,) or thresholds.dtype != torch.float64:
        raise ValueError(
            f"{name}: thresholds() must be a float64 tensor of shape ({len(values) - 1},), one number "
            f"between each two neighbouring values, but it is {thresholds.dtype} of shape "
            f"{tuple(thresholds.shape)}."
        )
    points: np.ndarray = thresholds.detach().cpu().numpy()
    outside = np.flatnonzero(~((values[:-1] <= points) & (points <= values[1:])))
    for at in outside[:1]:
        raise ValueError(
            f"{name}: thresholds() has {points[at]} at position {at}, where it must lie between the "
            f"values {values[at]} and {values[at + 1]}."
        )
    return points


def switch_points(
    values: np.ndarray,
    codes: np.ndarray,
    zero: int,
    dtype: torch.dtype,
    thresholds: np.ndarray | None = None,
) -> np.ndarray:
    """For each neighbouring pair of ``values`` the smallest float of ``dtype`` that rounds up.

    Exactly. A threshold (float64; None for the midpoints) goes to the even code; if both codes are
    even or both odd, to the even rung (position less ``zero``); a threshold that is a value stays
    it. ``values`` and ``codes`` have shape ``(n,)``, ``thresholds`` and the result ``(n - 1,)``.
    """
    real = np.float64 if dtype == torch.float64 else np.float32
    # Every float32 is a multiple of 2^-149, so every midpoint is one of 2^-150: Python's integers
    # hold both exactly, and compare with floats exactly. Thresholds are multiples of 2^-1074.
    unit = 150 if thresholds is None else 1074
    exact = [_units(value, unit) for value in values.tolist()]
    if thresholds is None:
        points = [(low + high) // 2 for low, high in pairwise(exact)]
    else:
        points = [_units(point, unit) for point in thresholds.tolist()]
    even = (codes % 2 == 0).tolist()
    switches = np.empty(len(values) - 1, dtype=real)
    for i, point in enumerate(points):
        if point in (exact[i], exact[i + 1]):
            up = point == exact[i + 1]
        else:
            up = even[i + 1] if even[i] != even[i + 1] else (i + 1 - zero) % 2 == 0
        switches[i] = _smallest_beyond(point, unit, real, inclusive=up)
    return switches


def _units(value: float, unit: int) -> int:
    """``value``, a multiple of ``2^-unit``, as a number of these."""
    numerator, denominator = value.as_integer_ratio()
    return (numerator << unit) // denominator


def _smallest_beyond(
    point: int, unit: int, real: type[np.floating], *, inclusive: bool
) -> np.floating:
    """The smallest float above ``point * 2^-unit``, or equal to it if ``inclusive``."""
    # Rounding is monotone, so the float before this one lies below the point, and the next above.
    found = real(point / 2**unit)
    scaled = _units(float(found), unit)
    if scaled > point or (inclusive and scaled == point):
        return found
    above: np.floating = np.nextafter(found, real(np.inf))
    return above

"""A format under test: its neighbouring pairs, its calls on a device, and comparing results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from altgrad_core.interfaces.format import LISTED_BITS, Format

PAIRS = 1024
"""Of more pairs of neighbours, about so many are checked: evenly spread, and the ends."""


class FormatProbe:
    """Takes inputs to the device, brings results back to the host, and compares them bit for bit.

    ``lower``: rungs (int64), shape ``(n,)``; ``low`` and ``high``: the values (float32) on each of
    them and on the next, the neighbours between which rounding is checked; ``between``: the threshold
    of rounding between them (float64 where the format states its own, else their midpoint in float32).
    """

    def __init__(self, fmt: Format, device: torch.device) -> None:
        self.fmt = fmt
        self.device = device
        ends = self.to_rung(torch.tensor([-math.inf, math.inf])).tolist()
        self.bottom, self.top = int(ends[0]), int(ends[1])
        self.require(
            self.bottom <= 0 < self.top or self.bottom < 0 <= self.top,
            f"to_rung(-inf) and to_rung(inf) must be the ends of the ladder, not {ends}.",
        )
        step = max(1, math.ceil((self.top - self.bottom) / PAIRS))
        lower = {*range(self.bottom, self.top, step), self.top - 1, -2, -1, 0, 1}
        self.lower = torch.tensor(sorted(k for k in lower if self.bottom <= k < self.top))
        self.low = self.from_rung(self.lower)
        self.high = self.from_rung(self.lower + 1)
        self.own_rule = self.listed and fmt.thresholds() is not None
        self.between = self._thresholds()

    def _thresholds(self) -> Tensor:
        given = self.fmt.thresholds() if self.listed else None
        if given is None:
            return self.low / 2 + self.high / 2
        self.require(
            given.shape == (self.top - self.bottom,) and given.dtype == torch.float64,
            f"thresholds() must be float64 of shape ({self.top - self.bottom},), not {given.dtype} of "
            f"shape {tuple(given.shape)}.",
        )
        return given[self.lower - self.bottom]

    def owned(self) -> Tensor:
        """Of each pair, which end has all that lies between: 1 the upper, -1 the lower, else 0."""
        if not self.own_rule:
            return torch.zeros_like(self.lower)
        return (self.between == self.low).long() - (self.between == self.high).long()

    @property
    def listed(self) -> bool:
        """Whether the format lists its codes; of a wider one a sample is checked."""
        return self.fmt.bits <= LISTED_BITS

    def round(self, x: Tensor) -> Tensor:
        """``fmt.round(x)``, to nearest."""
        return self.fmt.round(x.to(self.device)).cpu()

    def draw(self, x: Tensor, seed: int) -> Tensor:
        """``fmt.round(x)``, stochastic, with a fresh generator."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return self.fmt.round(x.to(self.device), "stochastic", generator).cpu()

    def encode(self, x: Tensor) -> Tensor:
        """``fmt.encode(x)``."""
        return self.fmt.encode(x.to(self.device)).cpu()

    def decode(self, codes: Tensor) -> Tensor:
        """``fmt.decode(codes)``."""
        return self.fmt.decode(codes.to(self.device)).cpu()

    def to_rung(self, x: Tensor) -> Tensor:
        """``fmt.to_rung(x)``."""
        return self.fmt.to_rung(x.to(self.device)).cpu()

    def from_rung(self, rungs: Tensor) -> Tensor:
        """``fmt.from_rung(rungs)``."""
        return self.fmt.from_rung(rungs.to(self.device)).cpu()

    def ulp(self, x: Tensor) -> Tensor:
        """``fmt.ulp(x)``."""
        return self.fmt.ulp(x.to(self.device)).cpu()

    def around(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        """Each pair's ends, middle, threshold and the floats beside it, with the pair's place in ``lower``."""
        low, high = self.low.to(dtype), self.high.to(dtype)
        up, down = torch.full_like(low, math.inf), torch.full_like(low, -math.inf)
        middle = low / 2 + high / 2
        between = self.between.to(dtype) if self.own_rule else middle
        beside = (torch.nextafter(between, up), torch.nextafter(between, down))
        for x in (low, middle, *((between,) if self.own_rule else ()), *beside, high):
            index = ((x >= low) & (x <= high)).nonzero().flatten()
            yield x[index], index

    def require(self, condition: bool, sentence: str) -> None:
        """Raise ``AssertionError`` with the sentence unless the condition holds."""
        if not condition:
            raise AssertionError(f"{self.fmt.name}: {sentence}")

    def require_raises(self, kind: type[Exception], call: Callable[[], object], when: str) -> None:
        """Require that ``call`` raises an exception of that kind."""
        try:
            call()
        except kind:
            return
        self.require(False, f"{when} must raise {kind.__name__}.")

    def require_equal(
        self, what: str, x: Tensor, got: Tensor, want: Tensor, hint: str = ""
    ) -> None:
        """Require that two results for ``x`` agree bit for bit (any NaN equals any NaN)."""
        self.require(got.dtype == want.dtype, f"{what} is {got.dtype} instead of {want.dtype}.")
        self.require(got.shape == want.shape, f"{what} has the shape {tuple(got.shape)}.")
        differs = (got != want) & ~(got.isnan() & want.isnan())
        if got.dtype.is_floating_point:
            differs |= (got.signbit() != want.signbit()) & ~got.isnan()
        for at in _smallest(differs, x):
            place = tuple(at)
            self.require(
                False,
                f"{what} of {x[place].item()!r} is {got[place].item()!r} instead of "
                f"{want[place].item()!r} ({int(differs.sum())} of {differs.numel()} differ). {hint}".strip(),
            )


def _smallest(chosen: Tensor, x: Tensor) -> list[list[int]]:
    """Where, of the chosen elements, the one of smallest magnitude is: one index, or none."""
    places = chosen.nonzero()
    if not len(places):
        return []
    magnitude = x.broadcast_to(chosen.shape)[chosen].double().abs().nan_to_num(math.inf)
    index: list[list[int]] = places[magnitude.argmin()].unsqueeze(0).tolist()
    return index

"""When the scale of a resident weight must change, and what it becomes then.

A resident weight keeps its scale until it must change, and then the change is made at once. The
scale *that would do* is the smallest power of two under which the amax fits, headroom included.

- A weight does not fit: the scale grows to the one that would do. On a tapered grid, whose headroom is
  its own, a weight does not fit either beyond four times the place where amax belongs.
- All of the weight would round to zero: it shrinks to the one that would do.
- The weight would fit four times over (an outlier would otherwise coarsen the grid for good): it
  shrinks to twice the one that would do. A grid that holds the double of each of its values, as
  far as that is in range, shrinks without moving any. On other grids (tables, NF4) it waits until
  no weight that stands on a grid value would have to leave it.

What the rule leaves alone it goes on leaving alone, so weights that nothing updates keep their
scale. A tensor of zeros has no amax to go by and keeps its scale, too, until its first update.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.modules.repetition import traced
from altgrad_core.quantization.resident.table import bits
from altgrad_core.quantization.scaling import (
    compact_amax,
    expanded,
    headroom_of,
    power_of_two_at_least,
    power_of_two_limits,
)
from altgrad_core.quantization.settings import ScalingSettings


class ScaleFit:
    """The rule above for one format. Waits for nothing."""

    def __init__(
        self,
        fmt: Format,
        scaling: ScalingSettings,
        rounding: Rounding,
        axis: int | None = None,
    ) -> None:
        self._format = fmt
        self._scaling = scaling
        self._axis = axis
        self._headroom = headroom_of(fmt, scaling)
        self._fixed = scaling.mode == "frozen"
        if fmt.scaled and not self._fixed:
            self._largest, self._smallest = fmt.max_finite, fmt.min_positive
            self._closed = fmt.closed_under_doubling
            # Where the format itself says how far below its end it is precise, that is no room to grow.
            placed = math.inf if scaling.headroom is not None else 4 * self._largest / fmt.headroom
            self._reach_below, self._reach = (min(placed, r) for r in _reaches(fmt, rounding))

    def __call__(self, scale: Tensor, target: Tensor, resting: Tensor) -> Tensor:
        """The compact scale for ``target``, which has been on the grid of ``scale``.

        resting:
            the weights as they are: which of them stand on the grid of ``scale`` decides whether a
            grid that is not closed under doubling may shrink.
        """
        if self._fixed:
            return scale
        amax = compact_amax(target, self._scaling, self._axis)
        if self._plainly_stays(scale, amax):
            return scale
        room = self._headroom
        roomy = power_of_two_at_least(amax * room if room != 1 else amax, self._largest)
        leaves = amax > scale * self._reach_below
        if self._reach != self._reach_below:
            leaves |= (
                compact_amax(target.clamp_min(0), self._scaling, self._axis) > scale * self._reach
            )
        leaves |= amax < scale * self._smallest
        stays = torch.fmin(scale, 2 * roomy)
        if not self._closed:
            stays = torch.where(self._would_move(resting, scale, stays), scale, stays)
        new = torch.where(leaves, roomy, stays)
        return torch.where((amax > 0) & (amax < torch.inf), new, scale)

    def columns(self) -> tuple[int, ...] | None:
        """The rule in the numbers of a table; None where it takes more than these, or more than one scale."""
        if not self._format.scaled:
            return _CHANGES_NOTHING
        if self._scaling.granularity != "tensor":
            return None
        if self._fixed:
            return _CHANGES_NOTHING
        if self._reach != self._reach_below or not self._closed:
            return None
        least, most, ceiling = power_of_two_limits(self._largest)
        floats = self._reach, self._smallest, self._headroom, least, most
        return 0, *map(bits, floats), ceiling

    def _plainly_stays(self, scale: Tensor, amax: Tensor) -> bool:
        """Whether a look at the values is free and shows that no scale changes.

        It saves most of the rule: almost no step changes a scale.
        """
        if not look_is_free(scale):
            return False
        # above a quarter of the largest, the scale is no more than twice the least that would do;
        # close to either end, how float32 rounds decides, and so the rule itself
        above = max(self._smallest, self._largest / (4 * self._headroom)) * (1 + _CLOSE)
        below = self._reach * (1 - _CLOSE)
        if scale.dim() == 0:
            return above * float(scale) < float(amax) < below * float(scale)
        return bool(((amax > scale * above) & (amax < scale * below)).all())

    def _would_move(self, weight: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """For each scale, whether a weight stands on the old grid but not on the new one."""
        moves = self._holds(weight, old) & ~self._holds(weight, new)
        return compact_amax(moves.float(), self._scaling, self._axis) > 0

    def _holds(self, weight: Tensor, compact: Tensor) -> Tensor:
        return holds(self._format, weight, expanded(compact, weight, self._scaling, self._axis))


_CLOSE = 2.0**-20
_CHANGES_NOTHING = 1, *[0] * 6


def look_is_free(tensor: Tensor) -> bool:
    """Whether the host can read values without waiting for a device: on the CPU, outside of traces."""
    return tensor.device.type == "cpu" and not traced()


def holds(fmt: Format, weight: Tensor, scale: Tensor) -> Tensor:
    """For each element, whether it is a finite value of the grid of ``fmt`` at that scale."""
    if not fmt.scaled:
        return fmt.round(weight) == weight
    return fmt.round(weight / scale) * scale == weight


def ends_of(fmt: Format) -> tuple[float, float]:
    """The lowest and the highest finite value. Asked on the CPU."""
    lowest = fmt.from_rung(
        fmt.to_rung(torch.tensor([-torch.inf], dtype=torch.float32, device="cpu"))
    )
    return float(lowest), fmt.max_finite


def _reaches(fmt: Format, rounding: Rounding) -> tuple[float, float]:
    """How far from zero a value may lie and still round into the grid, below and above zero.

    To nearest, that is half a gap beyond the end. Below zero it is never less than above: what is
    beyond a short lower end saturates.
    """
    ends = torch.tensor(ends_of(fmt), dtype=torch.float32, device="cpu")
    spare = fmt.ulp(ends) / 2 if rounding == "nearest" else torch.zeros_like(ends)
    below, above = (ends.abs() + spare).tolist()
    return max(below, above), above

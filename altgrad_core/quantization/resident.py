"""Weights that live on the grid: after every step each is a grid value times its scale.

An optimizer moves the parameter in float32, wherever it wants it; :meth:`Resident.settle` then
rounds it back, to nearest or stochastically. No float32 copy of the weight outlives the step.

**The scale** is a power of two and changes only when it must: it grows when the new weights do not
fit under it, by as many doublings as they need, and it is halved when they would fit twice over (an
outlier would otherwise coarsen the grid for good); at once by as much as it takes, where all of them
would round to zero. Halving moves no weight, since all its values
lie on the finer grid, too; doubling rounds those that do not lie on the coarser one, together with
their update, in one rounding. Each change is counted.

**Kahan compensation** keeps what rounding took from each weight and adds it to the next target
(Kahan 1965; for bfloat16 weights Zamirai et al. 2020, arXiv:2010.06192)::

    target = w + Δw + e        w' = scale · round(target / scale)        e' = round_c(target − w')

with ``round_c`` to the compensation's own format, at a power-of-two scale if that format needs one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.packing import packed, unpacked
from altgrad_core.quantization.roles import WeightRole
from altgrad_core.quantization.scaling import (
    Scaler,
    compact_amax,
    expanded,
    largest_magnitude,
    power_of_two_at_least,
    scale_for,
)

_ROOM_TO_SHRINK = 4.0
"""The scale is halved when this many times a scale that would do still fits under it."""


class Resident:
    """Keeps one parameter of a module on the grid of ``fmt``.

    What must survive a restart are buffers of the module: ``<parameter>_scale`` (compact, float32;
    not for formats used at scale 1), ``<parameter>_scale_changes`` (a count for each scale, int32)
    and ``<parameter>_compensation`` (in as many bits as its format has), with
    ``<parameter>_compensation_scale``.
    """

    def __init__(self, parameter: str, fmt: Format, role: WeightRole) -> None:
        self.parameter = parameter
        self.format = fmt
        self.rounding = role.rounding
        self.scaling = role.scaling
        self.compensation = role.compensation
        self._scale = f"{parameter}_scale"
        self._changes = f"{parameter}_scale_changes"
        self._error = f"{parameter}_compensation"
        self._error_scale = f"{parameter}_compensation_scale"
        # To nearest, values up to half a gap beyond the last grid value still round to it.
        last = torch.tensor([fmt.max_finite])
        spare = float(fmt.ulp(last)) / 2 if role.rounding == "nearest" else 0.0
        self._reach = fmt.max_finite + spare

    def move_in(self, module: nn.Module) -> None:
        """Put the weight on its grid, to nearest, at the scale that its amax asks for.

        With compensation, what this takes from the weight is kept.
        """
        weight = self._weight(module)
        with torch.no_grad():
            amax = compact_amax(weight, self.scaling)
            if self.format.scaled:
                scale = Scaler(self.format, self.scaling, self.parameter).fresh(amax)
                module.register_buffer(self._scale, scale)
            counted = amax if self.format.scaled else amax.new_zeros(())
            module.register_buffer(self._changes, torch.zeros_like(counted, dtype=torch.int32))
            settled = self._on_grid(module, weight.detach(), "nearest")
            if self.compensation is not None:
                self._keep_error(module, weight - settled)
            weight.copy_(settled)

    def move_out(self, module: nn.Module) -> None:
        """Take the buffers away; the weight keeps its grid values."""
        for name in (self._scale, self._changes, self._error, self._error_scale):
            module._buffers.pop(name, None)

    def scale(self, module: nn.Module) -> Tensor:
        """The compact scale; 1 for a format that is not scaled."""
        if not self.format.scaled:
            return torch.ones((), device=self._weight(module).device)
        return module.get_buffer(self._scale)

    def changes(self, module: nn.Module) -> Tensor:
        """How often the scales have changed so far, all together: 0-d, on the device."""
        return module.get_buffer(self._changes).sum()

    def restore(self, module: nn.Module) -> None:
        """Put back what compensation holds: the weight as it was meant, off the grid."""
        if self.compensation is not None:
            with torch.no_grad():
                weight = self._weight(module)
                weight.add_(self._error_of(module, weight))

    @torch.no_grad()
    def settle(self, module: nn.Module, generator: torch.Generator | None) -> None:
        """Round the weight, which an optimizer has moved, back to its grid. Waits for nothing.

        ``generator`` is what stochastic rounding draws from. A weight that is not finite stays as
        it is, so that a broken run shows.
        """
        weight = self._weight(module)
        target = weight.detach()
        if self.compensation is not None:
            target = target + self._error_of(module, target)
        self._rescale(module, target)
        settled = self._on_grid(module, target, self.rounding, generator)
        if self.compensation is not None:
            self._keep_error(module, target - settled)
        weight.copy_(settled)

    def __str__(self) -> str:
        kept = "" if self.compensation is None else f", kahan in {self.compensation.name}"
        return f"grid ({self.rounding}{kept})"

    def _weight(self, module: nn.Module) -> nn.Parameter:
        weight = module._parameters[self.parameter]
        assert weight is not None
        return weight

    def _on_grid(
        self,
        module: nn.Module,
        target: Tensor,
        rounding: Rounding,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if self.format.scaled:
            scale = expanded(self.scale(module), target, self.scaling)
            settled = self.format.round(target / scale, rounding, generator).mul_(scale)
        else:
            settled = self.format.round(target, rounding, generator)
        # One zero, since some formats have no code for another; and saturation heals nothing.
        settled.add_(0.0)
        return torch.where(target.isfinite(), settled, target)

    def _rescale(self, module: nn.Module, target: Tensor) -> None:
        """Change the scales that must change, and count."""
        if not self.format.scaled or self.scaling.mode == "frozen":
            return
        scale = module.get_buffer(self._scale)
        amax = compact_amax(target, self.scaling)
        needed = power_of_two_at_least(amax, self._reach)
        roomy = power_of_two_at_least(amax * self.scaling.headroom, self.format.max_finite)
        smaller = torch.where(roomy * _ROOM_TO_SHRINK <= scale, scale / 2, scale)
        vanishes = amax < scale * self.format.min_positive  # all of it would round to zero
        new = torch.where((needed > scale) | vanishes, roomy, smaller)
        new = torch.where((amax > 0) & amax.isfinite(), new, scale)
        module.get_buffer(self._changes).add_(new != scale)
        scale.copy_(new)

    def _error_of(self, module: nn.Module, like: Tensor) -> Tensor:
        assert self.compensation is not None
        kept = unpacked(module.get_buffer(self._error), self.compensation)
        if self.compensation.scaled:
            kept = kept * module.get_buffer(self._error_scale)
        return kept.to(like.dtype)

    def _keep_error(self, module: nn.Module, error: Tensor) -> None:
        fmt = self.compensation
        assert fmt is not None
        error = error.nan_to_num(0.0, 0.0, 0.0)
        if fmt.scaled:
            scale = scale_for(largest_magnitude(error), fmt, power_of_two=True)
            _put(module, self._error_scale, scale)
            error = error / scale
        _put(module, self._error, packed(fmt.round(error), fmt))


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    """Register a buffer, or write into the one that is there."""
    if name in module._buffers:
        module.get_buffer(name).copy_(value)
    else:
        module.register_buffer(name, value)

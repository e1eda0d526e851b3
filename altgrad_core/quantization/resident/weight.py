"""Weights that live on the grid: after every step each is a grid value times its scale.

An optimizer moves the parameter in float32, wherever it wants it; :meth:`Resident.settle` then
rounds it back, to nearest or stochastically. No float32 copy of the weight outlives the step.

**The scale** is a power of two and changes only when it must, as :mod:`.fitting` says. Shrinking
moves no weight; growing rounds those that do not lie on the coarser grid, together with their
update, in one rounding. Each change is counted.

**A weight at rest**, one that an optimizer left on its grid value, stays there bit for bit, whatever
the rounding and whatever compensation holds; only a grid that grows can move it. So weights that
nothing updates never change: frozen ones, ones without a gradient, all of them in a skipped step.

**A weight that something else has written** (a new initialisation, a checkpoint without scales, a
new tensor behind ``.data``) is found by its amax, so the scale in force always fits it: the next
forward goes by that, and the next step writes it down.

**Compensation**, where it is wanted, keeps what rounding took from each weight: see :mod:`.compensation`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from functools import cached_property
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.kernels.backends import plain_on_cpu
from altgrad_core.quantization.modules.roles import WeightRole
from altgrad_core.quantization.resident.compensation import (
    Compensation,
    buffer_of,
    buffers_of,
    with_error,
)
from altgrad_core.quantization.resident.fitting import ScaleFit, ends_of
from altgrad_core.quantization.resident.table import (
    Row,
    grid_columns,
    kept_by_bfloat16,
    places,
    unscaled,
)
from altgrad_core.quantization.scaling import Scaler


class Keepers(list[Callable[[nn.Module], None]]):
    """What to call when a module is dequantised, so that nobody goes on settling its weights.

    Belongs to this one model: a copied or unpickled model has none.
    """

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type[Keepers], tuple[()]]:
        return Keepers, ()


class Resident:
    """Keeps one parameter of a module on the grid of ``fmt``.

    What must survive a restart are buffers of the module: ``<parameter>_scale`` (compact, float32;
    not for formats used at scale 1), ``<parameter>_scale_changes`` (a count for each scale, int32),
    and those of :class:`.Compensation`.
    """

    def __init__(
        self, parameter: str, fmt: Format, role: WeightRole, axis: int | None = None
    ) -> None:
        self.parameter = parameter
        self.format = fmt
        self.rounding = role.rounding
        self._scaler = Scaler(fmt, role.scaling, parameter, axis)
        self._kahan = (
            None if role.compensation is None else Compensation(parameter, role.compensation)
        )
        self._scale = f"{parameter}_scale"
        self._changes = f"{parameter}_scale_changes"
        self._ends = ends_of(fmt)
        self._fit = ScaleFit(fmt, role.scaling, role.rounding, axis)
        self.keepers = Keepers()
        self.watched = False
        """Whether the next settling keeps what the optimizer wanted."""
        self.intended: Tensor | None = None

    @property
    def compensation(self) -> Format | None:
        """The format that keeps what rounding takes, if any does."""
        return None if self._kahan is None else self._kahan.format

    def move_in(self, module: nn.Module) -> None:
        """Put the weight on its grid, to nearest, at the scale that its amax asks for.

        With compensation, what this takes from the weight is kept.
        """
        weight = self._weight(module)
        with torch.no_grad():
            amax = self._scaler.amax(weight)
            if self.format.scaled:
                scale = self._scaler.fresh(amax)
                module.register_buffer(self._scale, scale)
            counted = amax if self.format.scaled else amax.new_zeros(())
            module.register_buffer(self._changes, torch.zeros_like(counted, dtype=torch.int32))
            settled = self._on_grid(weight.detach(), self._stored(module), "nearest")
            if self._kahan is not None:
                self._kahan.keep(module, weight - settled)
            weight.copy_(settled)
            self.mark(module)

    def move_out(self, module: nn.Module) -> None:
        """Take the buffers away; the weight keeps its grid values."""
        for name in self.buffers():
            module._buffers.pop(name, None)

    def buffers(self) -> tuple[str, ...]:
        """Names of the buffers that the module may have for this parameter."""
        return self._scale, self._changes, *buffers_of(self.parameter)

    @torch.no_grad()
    def scale(self, module: nn.Module) -> Tensor:
        """The compact scale in force; 1 for a format that is not scaled.

        The stored one, unless something other than an optimizer has written weights that it does
        not fit.
        """
        weight, stored = self._weight(module).detach(), self._stored(module)
        if not self.format.scaled:
            return stored
        found = self.row(module) if backend_for(weight) == "triton" else None
        if found is None:
            return self._fit(stored, weight, weight)
        from altgrad_core.quantization.kernels import gpu_settling

        return gpu_settling.scale_in_force(weight, stored, found[0])

    def stores(self, module: nn.Module) -> bool:
        """Whether every weight is a finite value of the grid at the stored scale. Waits."""
        weight = self._weight(module).detach()
        on_grid = self._on_grid(weight, self._stored(module), "nearest")
        return bool(((on_grid == weight) & weight.isfinite()).all())

    def changes(self, module: nn.Module) -> Tensor:
        """How often the scales have changed so far, all together: 0-d, on the device."""
        return module.get_buffer(self._changes).sum()

    def restore(self, module: nn.Module) -> None:
        """Put back what compensation holds: the weight as it was meant, off the grid."""
        self.begin(module)
        if self._kahan is not None:
            with torch.no_grad():
                weight = self._weight(module)
                weight.add_(self._kahan.of(module, weight))

    @torch.no_grad()
    def begin(self, module: nn.Module) -> None:
        """Drop the compensation of a weight that something else has written since the last mark.

        Waits for nothing. Due before an update, and before anything that looks like a write but is
        none, or takes a copy of both.
        """
        weight = module._parameters.get(self.parameter)
        if self._kahan is not None and weight is not None:
            self._kahan.begin(module, weight)

    def mark(self, module: nn.Module) -> None:
        """Weight and compensation belong together as they are now."""
        weight = module._parameters.get(self.parameter)
        if self._kahan is not None and weight is not None:
            self._kahan.mark(module, weight)

    def loaded(self, module: nn.Module, names: Container[str]) -> None:
        """What is called ``names`` in the module has been taken from a checkpoint."""
        if self._kahan is not None and self._kahan.buffer in names:
            self.mark(module)

    @torch.no_grad()
    def settle(
        self,
        module: nn.Module,
        generator: torch.Generator | None,
        skipped: Tensor | None = None,
    ) -> None:
        """Round the weight, which an optimizer has moved, back to its grid. Waits for nothing.

        generator:
            what stochastic rounding draws from.
        skipped:
            0-d; where it is not 0 the optimizer has skipped the step, and nothing is changed.

        A weight that is not finite stays as it is, so that a broken run shows.
        """
        weight, stored = self._weight(module), self._stored(module)
        moved = weight.detach()
        self.moved(module)
        target, held = moved, None
        if self._kahan is not None:
            error, wide = self._kahan.of(module, moved), self._scaler.expanded(stored, moved)
            target, held = with_error(self.format, moved, wide, error)
        scale = self._fit(stored, target, moved) if self.format.scaled else stored
        out = moved if skipped is None else None  # what a skipped step leaves is needed still
        settled = self._on_grid(target, scale, self.rounding, generator, out)
        if self.format.scaled:
            scale = self._fit(scale, settled, settled)
            if skipped is not None:
                scale = torch.where(skipped != 0, stored, scale)
            if scale is not stored:
                module.get_buffer(self._changes).add_(scale != stored)
                stored.copy_(scale)
        if self._kahan is not None and held is not None:
            self._kahan.store(module, held.left(target, settled), unless=held.stays(skipped))
        if skipped is not None:
            settled = torch.where(skipped != 0, moved, settled)
        if settled is not moved:
            weight.copy_(settled)
        self.mark(module)

    def row(self, module: nn.Module) -> tuple[Row, list[Tensor]] | None:
        """What kernels need to do the same as :meth:`settle`, of all weights at once, and what they then write.

        None if they cannot.
        """
        weight = self._weight(module)
        if self._numbers is None or backend_for(weight) == "eager":
            return None
        scale = self._stored(module) if self.format.scaled else unscaled(weight.device)
        names = [self._changes, *([] if self._kahan is None else [self._kahan.buffer])]
        written = [weight, scale, *(buffer_of(module, name) for name in names)]
        found = places(written)
        return None if found is None else (found + self._numbers, written)

    @cached_property
    def _numbers(self) -> Row | None:
        """The columns that never change."""
        grid = grid_columns(self.format) if kept_by_bfloat16(self.compensation) else None
        rule = self._fit.columns() if grid is not None else None
        return None if grid is None or rule is None else grid + rule

    def moved(self, module: nn.Module) -> None:
        """Before kernels settle the weight: keep what the optimizer wanted, if somebody wants to see it."""
        if self.watched:
            self.watched, self.intended = False, self._weight(module).detach().clone()

    def settled(self, module: nn.Module, written: list[Tensor]) -> None:
        """Kernels have settled the weight, and written what :meth:`row` said."""
        torch.autograd.graph.increment_version(written)
        self.mark(module)

    def __str__(self) -> str:
        kept = "" if self.compensation is None else f", kahan in {self.compensation.name}"
        return f"grid ({self.rounding}{kept})"

    def _weight(self, module: nn.Module) -> nn.Parameter:
        return parameter_of(module, self.parameter)

    def _stored(self, module: nn.Module) -> Tensor:
        """The compact scale of the last settling."""
        if not self.format.scaled:
            return torch.ones((), dtype=torch.float32, device=self._weight(module).device)
        return buffer_of(module, self._scale)

    def _on_grid(
        self,
        target: Tensor,
        compact: Tensor,
        rounding: Rounding,
        generator: torch.Generator | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """``target`` on its grid: a new tensor, or ``out`` (which may be ``target``) where kernels write to that."""
        if self.format.scaled:
            scale = self._scaler.expanded(compact, target)
            if scale.dim() == 0 and plain_on_cpu(target):
                from altgrad_core.quantization.kernels import settling

                inside = settling.divided(target, scale, self._ends)
                rounded = self.format.round_into(inside, inside, rounding, generator)
                return settling.settled(rounded, scale, target, rounded if out is None else out)
            inside = (target / scale).clamp_(*self._ends)  # no format's overflow makes an inf here
            settled = self.format.round(inside, rounding, generator).mul_(scale)
        else:
            settled = self.format.round(target, rounding, generator)
        # One zero, since some formats have no code for another; and saturation heals nothing.
        settled.add_(0.0)
        return torch.where(target.isfinite(), settled, target)


def check_dtype(name: str, weight: Tensor, *formats: Format | None) -> None:
    """Raise ``UserError`` for a weight whose dtype cannot hold every value of the formats (not None)."""
    for fmt in filter(None, formats):
        try:
            fmt.check_dtype(weight)
        except TypeError:
            raise UserError(
                f"{name} has weights of {weight.dtype}, which cannot hold every value of "
                f"{fmt.name}, so they cannot live on the grid. Keep the model in float32, with "
                f"model.float(), or use residency: master."
            ) from None


def parameter_of(module: nn.Module, name: str) -> nn.Parameter:
    """The parameter called ``name``; raises ``UserError`` if a computed tensor has taken its place."""
    parameter = module._parameters.get(name)
    if parameter is None:
        raise UserError(
            f"{name!r} of a {type(module).__name__} is no longer a parameter (pruning, weight norm "
            f"and parametrizations compute it), so it has no grid to live on. Undo that, or "
            f"quantise the model with residency: master."
        )
    return parameter

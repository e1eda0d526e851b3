"""What a number format is: a finite set of real values, one per code.

Only :meth:`Format.code_values` has to be written. Everything else is derived from it, exactly, and
may be overridden with something faster; ``altgrad_core.testing`` checks an override against the
derivation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.draws import uniform
from altgrad_core.interfaces.grid import Grid, compute_dtype, untransformed
from altgrad_core.interfaces.placement import best_headroom, is_closed_under_doubling

Rounding = Literal["nearest", "stochastic"]
Overflow = Literal["saturate", "special"]
LISTED_BITS = 16
"""Formats up to this width are expected to list their codes."""
_BELOW_ONE = 1 - 2.0**-53


class Format(ABC):
    """A set of grid values with their codes.

    Vocabulary: a *code* is a bit pattern, an integer in ``[0, 2**bits)``. A *rung* is a grid
    value's signed position: 0 at zero, +1 the next larger value. The *ULP* at ``x`` is the gap from
    the grid value at or below ``|x|`` to the next one away from zero. All three ignore any scale: a
    format knows only its own values.

    A subclass sets :attr:`name` and :attr:`bits` as it likes (class attributes, ``__init__``,
    dataclass fields) and writes :meth:`code_values`, whose answer must never change. The derivation
    needs memory for ``2**bits`` values; a format too wide to list them (``fp32``) overrides every
    method and raises ``NotImplementedError`` in :meth:`code_values`.

    Inputs are float64, float32, bfloat16 or float16 tensors of any shape, on any device; another
    dtype raises ``TypeError``. Bfloat16 and float16 are rounded in float32, float64 in float64: no
    input is rounded twice. Results carry no gradient. Tables are copied to a device when it is
    first used; after that, :meth:`round`, :meth:`ulp`, :meth:`to_rung` and :meth:`from_rung` never
    wait for it.
    """

    name: str
    """The name under which the format was offered."""
    bits: int
    """Width of a code."""
    scaled: bool = True
    """Whether tensors are scaled to the format's range. bf16 and fp32 are used at scale 1."""
    native: str = ""
    """The torch dtype in which hardware multiplies this format's codes; "" where none does.

    ``float8_e4m3fn``, ``float8_e5m2``, ``bfloat16`` or ``float32``, which then holds the value of every code; or
    ``int8``, if every value is a multiple, from -128 to 127, of :attr:`min_positive`. The format's offer says the same.
    """

    @abstractmethod
    def code_values(self) -> Tensor:
        """The value of each code: float32, shape ``(2**bits,)``, on the CPU.

        NaN and inf where the code says so. At least two distinct values must be finite, and one
        positive. Several codes may share a value: the lowest stands for it.
        """

    def thresholds(self) -> Tensor | None:
        """Where ``nearest`` passes from each finite value to the next; None for the midpoints.

        For a rounding rule of the format's own, such as that of posits, which never round to zero:
        float64, shape ``(n - 1,)`` for ``n`` distinct finite values in ascending order, on the CPU;
        each between its two values, ends included. What lies below goes to the lower value, what
        lies above to the upper one, the threshold itself to the even code, as a midpoint does. A
        threshold that *is* one of the two values leaves that value where it is and gives all that
        lies between them to the other, whatever the rounding. :meth:`round`, :meth:`encode` and
        :meth:`to_rung` go by this; so do residency and the monitors, which ask them.
        """
        return None

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", generator: torch.Generator | None = None
    ) -> Tensor:
        """The grid value for each element of ``x``; same shape, dtype and device.

        ``nearest`` breaks ties to the even code (to the even rung if both codes are even or both
        odd). ``stochastic`` picks one of the two neighbours with a probability that makes the mean
        exact (but where :meth:`thresholds` leave no choice); its draws are those of
        :func:`.draws.uniform`, and it never moves a grid value. NaN stays NaN, the sign of zero is kept,
        and what lies beyond the ends of the grid (inf too) becomes the end.

        Raises ``TypeError`` if the dtype of ``x`` cannot hold every grid value, ``ValueError`` for
        another ``rounding``, or for ``stochastic`` without a generator.
        """
        return self._round(x, rounding, generator, None)

    def round_into(
        self,
        out: Tensor,
        x: Tensor,
        rounding: Rounding = "nearest",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Write what :meth:`round` gives into ``out``, which may be ``x``, and return it.

        ``out`` has the shape, dtype and device of ``x``. A format with kernels of its own overrides it to
        save a tensor.
        """
        if type(self).round is Format.round:
            return self._round(x, rounding, generator, out)
        return out.copy_(self.round(x, rounding, generator))

    def round_scaled(
        self,
        x: Tensor,
        scale: Tensor | None,
        dtype: torch.dtype,
        rounding: Rounding = "nearest",
        generator: torch.Generator | None = None,
        *,
        keep_inf: bool = False,
    ) -> Tensor:
        """``scale · round(x / scale)`` in ``dtype``: what products take. Computed in that of :func:`compute_dtype`.

        scale:
            broadcasts against ``x``; None for 1.
        keep_inf:
            whether inf stays inf, since saturation would hide a broken tensor.

        Overridden only to do the same in fewer passes.
        """
        work = x.detach().to(compute_dtype(x))
        if backend_for(x) == "triton" and type(self).round is Format.round:
            from altgrad_core.interfaces import gpu_grid

            draws = generator if check_rounding(rounding, generator) == "stochastic" else None
            fast = gpu_grid.round_scaled(self._grid, x, scale, dtype, draws, keep_inf=keep_inf)
            if fast is not None:
                return fast
        if scale is None:
            found = self.round(work, rounding, generator)
        else:
            found = self.round(work / scale, rounding, generator) * scale
        return (torch.where(work.isinf(), work, found) if keep_inf else found).to(dtype)

    def _round(
        self, x: Tensor, rounding: Rounding, generator: torch.Generator | None, out: Tensor | None
    ) -> Tensor:
        self.check_dtype(x)
        drawn = check_rounding(rounding, generator) == "stochastic"
        work = x.detach().to(compute_dtype(x))
        found = self._compiled(work, generator if drawn else None, out)
        if found is not None:
            return found if found is out else _put(found.to(x.dtype), out)
        if drawn and generator is not None:
            found = self._stochastic(work, generator)
        else:
            tables = self._grid.tables(work.device, work.dtype)
            found = tables.values[self._position(work)]
        found = torch.where(found == 0, torch.copysign(found, work), found)
        return _put(torch.where(work.isnan(), work, found).to(x.dtype), out)

    def _compiled(
        self, work: Tensor, generator: torch.Generator | None, out: Tensor | None
    ) -> Tensor | None:
        """``work`` rounded by a kernel, into ``out`` where that can be; None where there is none for it."""
        backend = backend_for(work)
        if backend == "eager" or work.dtype != torch.float32:
            return None
        if backend == "numba":
            from altgrad_core.interfaces.compiled_grid import round_by_table

            return round_by_table(self._grid, work, generator, out)
        from altgrad_core.interfaces import gpu_grid

        return gpu_grid.round_by_table(self._grid, work, generator, out)

    def encode(self, x: Tensor) -> Tensor:
        """The code (int32) of the grid value nearest to ``x``; shape of ``x``.

        Codes are those of ``round(x)``: -0 has its own code if the format has one, and NaN (or inf,
        where ``round`` lets inf through) the lowest code that means it. Raises ``ValueError`` if
        there is no such code. Looks at the data, so it waits for the device.
        """
        grid = self._grid
        rounded = self.round(x.detach().to(compute_dtype(x)))
        codes = grid.codes(x.device)[self.to_rung(rounded) + grid.zero]
        if grid.negative_zero is not None:
            negative_zero = (rounded == 0) & rounded.signbit()
            codes = codes.masked_fill(negative_zero, grid.negative_zero)
        for special, mask, code in (
            ("NaN", rounded.isnan(), grid.nan),
            ("+inf", rounded == torch.inf, grid.inf[1]),
            ("-inf", rounded == -torch.inf, grid.inf[-1]),
        ):
            if code is not None:
                codes = codes.masked_fill(mask, code)
            elif bool(mask.any()):
                raise ValueError(f"{self.name} has no code for {special}, and the tensor holds it.")
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """The value (float32) of each code; ``codes`` are integers of any dtype and shape.

        Raises ``ValueError`` for a code outside ``[0, 2**bits)``, so it waits for the device.
        """
        self.check_codes(codes)
        return self._grid.by_code(codes.device)[codes.long()]

    def to_rung(self, x: Tensor) -> Tensor:
        """The rung (int32) of the grid value nearest to ``x``; shape of ``x``.

        Beyond the ends of the grid (inf too) it is the end's rung. NaN has no rung and gives 0: ask
        ``x.isnan()`` where that matters.
        """
        work = x.detach().to(compute_dtype(x))
        rungs = self._position(work) - self._grid.zero
        return rungs.masked_fill_(work.isnan(), 0)

    def from_rung(self, rungs: Tensor) -> Tensor:
        """The value (float32) on each rung; ``rungs`` are integers of any dtype and shape.

        Rungs beyond the ends of the ladder give the end's value; rung 0 is +0.
        """
        grid = self._grid
        inside = rungs.long().clamp(-grid.zero, len(grid) - 1 - grid.zero)
        return grid.values(rungs.device)[inside + grid.zero]

    def ulp(self, x: Tensor) -> Tensor:
        """The gap to the neighbouring grid value at ``x``; same shape, dtype and device as ``x``.

        That is the gap between the grid value at or below ``|x|`` and the next one away from zero,
        on the side of zero where ``x`` is. At and beyond the last value it is the last gap. NaN
        gives NaN.

        Raises ``TypeError`` like :meth:`round`.
        """
        self.check_dtype(x)
        work = x.detach().to(compute_dtype(x)).contiguous()
        tables = self._grid.tables(work.device, work.dtype)
        # gaps[i] lies between values[i] and values[i + 1], and i is the last value <= x ...
        gap = torch.bucketize(work, tables.values, right=True).sub_(1).clamp_(min=0)
        # ... but for a negative grid value the gap away from zero is the one before it.
        gap = gap.sub_(((work < 0) & (tables.values[gap] == work)).to(gap.dtype))
        gap.clamp_(0, len(self._grid) - 2)
        return torch.where(work.isnan(), work, tables.gaps[gap]).to(x.dtype)

    @property
    def max_finite(self) -> float:
        """The largest finite grid value."""
        return self._grid.largest

    @property
    def min_positive(self) -> float:
        """The smallest positive grid value."""
        return self._grid.min_positive

    @cached_property
    def headroom(self) -> float:
        """How far below :attr:`max_finite` the amax of a tensor belongs: at ``max_finite / headroom``.

        Derived from the grid, see :mod:`.placement`; override it to say otherwise. At least 1, and 1
        for a format that is not scaled.
        """
        if not self.scaled:
            return 1.0
        with untransformed():
            return best_headroom(self.round, self.max_finite, self.min_positive)

    @cached_property
    def closed_under_doubling(self) -> bool:
        """Whether halving the scale of a tensor that lies on the grid moves no value of it.

        False for more than 16 bits, whose values are not listed: the careful way is right for all.
        """
        if self.bits > LISTED_BITS:
            return False
        with untransformed():
            return is_closed_under_doubling(self.code_values(), self.max_finite)

    def exact_in(self, dtype: torch.dtype) -> bool:
        """Whether ``dtype`` holds every finite grid value exactly."""
        return self._grid.exact_in(dtype)

    def facts(self) -> dict[str, object]:
        """Facts for ``altgrad-bench show``, in order, beside those that can be read off the grid."""
        return {}

    def check_dtype(self, x: Tensor) -> None:
        """Raise ``TypeError`` unless ``x`` has a dtype that can hold what :meth:`round` returns."""
        if compute_dtype(x) != x.dtype and not self.exact_in(x.dtype):
            raise TypeError(
                f"{self.name} has values that {x.dtype} cannot hold, so it cannot round a tensor "
                "of that dtype to the same dtype. Convert it first, e.g. with x.float()."
            )

    def check_codes(self, codes: Tensor) -> None:
        """Raise ``ValueError`` unless every code lies in ``[0, 2**bits)``. Waits for the device."""
        if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= 2**self.bits):
            raise ValueError(
                f"{self.name} has codes from 0 to {2**self.bits - 1}, but the tensor holds codes "
                f"from {int(codes.min())} to {int(codes.max())}."
            )

    @cached_property
    def _grid(self) -> Grid:
        with untransformed():
            return Grid(self.code_values(), self.bits, self.name, self.thresholds())

    def _position(self, work: Tensor) -> Tensor:
        """Position (int32) of the nearest value; ``work`` has a compute dtype. NaN is put last."""
        switches = self._grid.tables(work.device, work.dtype).switches
        return torch.bucketize(work.contiguous(), switches, right=True, out_int32=True)

    def _stochastic(self, work: Tensor, generator: torch.Generator) -> Tensor:
        grid = self._grid
        values = grid.tables(work.device, torch.float64).values
        # In float64, where neither the gap nor the distance can overflow.
        inside = work.double().clamp(grid.smallest, grid.largest)
        lower = torch.bucketize(inside.contiguous(), values, right=True).sub_(1)
        lower.clamp_(0, len(grid) - 2)
        low, high = values[lower], values[lower + 1]
        share = (inside - low) / (high - low)
        draw = uniform(share, generator)
        owners = grid.owners(work.device)
        if owners is not None:  # up whatever was drawn, or only from the upper value itself
            owner = owners[lower]
            draw.masked_fill_(owner > 0, 0.0).masked_fill_(owner < 0, _BELOW_ONE)
        return torch.where(draw < share, high, low).to(work.dtype)


def _put(found: Tensor, out: Tensor | None) -> Tensor:
    return found if out is None else out.copy_(found)


def check_rounding(rounding: Rounding, generator: torch.Generator | None) -> Rounding:
    """Return ``rounding``.

    Raises ``ValueError`` if it is unknown, or stochastic without a generator.
    """
    if rounding not in ("nearest", "stochastic"):
        raise ValueError(f"rounding is 'nearest' or 'stochastic', not {rounding!r}.")
    if rounding == "stochastic" and generator is None:
        raise ValueError(
            "Stochastic rounding draws from an explicit generator, so that runs can be repeated: "
            "pass generator=torch.Generator(device).manual_seed(...)."
        )
    return rounding

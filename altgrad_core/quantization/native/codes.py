"""A tensor as codes of 8 bits, ready for a native product: values in float8, or steps of the grid in int8."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.format import Format, Rounding, check_rounding
from altgrad_core.quantization.kernels import backends
from altgrad_core.quantization.kernels.stated import stated_numbers
from altgrad_core.quantization.modules.fake_quant import LOW_PRECISION, Rounded, round_to_grid
from altgrad_core.quantization.scaling import largest_magnitude, power_of_two_part
from altgrad_core.quantization.settings import ScalingSettings

CODES = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)


def place_codes(
    x: Tensor,
    fmt: Format,
    scale: Tensor,
    dtype: torch.dtype,
    *,
    scaling: ScalingSettings,
    axis: int | None = None,
    rounding: Rounding = "nearest",
    generator: torch.Generator | None = None,
    keep_inf: bool = False,
) -> Rounded:
    """As :func:`round_to_grid`, of which the values are codes where ``dtype`` is that of codes.

    The whole scale, of which there is one for the tensor, is then left for the epilogue, with the step of the
    grid where codes are integers. What is not finite, which codes may not be able to say, shows there.
    """
    if dtype not in CODES:
        return round_to_grid(
            x,
            fmt,
            scale,
            dtype,
            scaling=scaling,
            axis=axis,
            rounding=rounding,
            generator=generator,
            keep_inf=keep_inf,
        )
    with torch.no_grad():
        step = fmt.min_positive if dtype == torch.int8 else 1.0
        codes = _codes(x, fmt, scale if fmt.scaled else None, dtype, rounding, generator, step)
        if keep_inf or not fmt.scaled:  # else the scale was found from this very tensor
            amax = largest_magnitude(x)
            scale = torch.where(amax.isfinite(), scale, amax + 1)
        return Rounded(codes, scale * step if step != 1.0 else scale, scale)


def _codes(
    x: Tensor,
    fmt: Format,
    scale: Tensor | None,
    dtype: torch.dtype,
    rounding: Rounding,
    generator: torch.Generator | None,
    step: float,
) -> Tensor:
    """``round(x / scale) / step`` in ``dtype``; in one launch on a GPU, of formats that state their numbers."""
    even = math.frexp(step)[0] == 0.5
    numbers = stated_numbers(fmt) if even and backend_for(x) == "triton" else None
    if numbers is not None and numbers.overflow is None:
        draws = None if check_rounding(rounding, generator) == "nearest" else generator
        found = backends.round_scaled(x, scale, numbers, dtype, draws, keep_inf=False, step=step)
        if found is not None:
            return found
    work = x.detach().float() if x.dtype in LOW_PRECISION else x.detach()
    values = fmt.round(work if scale is None else work / scale, rounding, generator)
    if step != 1.0:
        values = values * (1 / step) if even else (values / step).round_()
    return values.to(dtype)


class Codes(NamedTuple):
    """One operand of a product, two-dimensional: it stands for ``values * epilogue`` (0-d; None for 1)."""

    values: Tensor
    epilogue: Tensor | None

    def t(self) -> Codes:
        """Transposed."""
        return Codes(self.values.t(), self.epilogue)


def simulated(codes: Codes, dtype: torch.dtype) -> Codes:
    """The values that ``codes`` stand for, as :func:`round_to_grid` gives them in ``dtype``."""
    values, epilogue = codes
    if epilogue is None or values.dtype not in CODES:
        return Codes(values.to(dtype), epilogue)
    if dtype not in LOW_PRECISION:
        return Codes(values.to(dtype) * epilogue, None)
    # of a subnormal epilogue no power of two is left: there the smallest normal one is taken
    power = power_of_two_part(epilogue.clamp_min(torch.finfo(torch.float32).tiny))
    return Codes((values.float() * power).to(dtype), epilogue / power)

"""A tensor as codes of 8 bits, ready for a native product: values in float8, or steps of the grid in int8."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format, Rounding
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
        work = x.detach().float() if x.dtype in LOW_PRECISION else x.detach()
        values = fmt.round(work / scale if fmt.scaled else work, rounding, generator)
        seen = scale
        if keep_inf or not fmt.scaled:  # else the scale was found from this very tensor
            amax = largest_magnitude(work)
            seen = torch.where(amax.isfinite(), scale, amax + 1)
        if dtype == torch.int8:
            step = fmt.min_positive
            return Rounded(_multiples(values, step).to(dtype), seen * step, seen)
        return Rounded(values.to(dtype), seen, seen)


def _multiples(values: Tensor, step: float) -> Tensor:
    """``values`` in steps of the grid, whole numbers."""
    if math.frexp(step)[0] == 0.5:
        return values * (1 / step)
    return (values / step).round_()


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
    power = power_of_two_part(epilogue)
    return Codes((values.float() * power).to(dtype), epilogue / power)

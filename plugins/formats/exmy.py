"""Sign-magnitude floating-point formats of any layout: the ladder and ``exmy``."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.format import Format, Overflow, Rounding, check_rounding
from altgrad_core.quantization.kernels import backends
from altgrad_core.quantization.kernels import rounding as kernel
from altgrad_core.quantization.kernels.numbers import GridNumbers
from altgrad_core.quantization.kernels.stated import stated_numbers
from altgrad_plugins.formats.ladder import LADDER, NATIVE
from altgrad_plugins.formats.layout import Layout
from altgrad_plugins.formats.settings import ExMySettings, OverflowSettings, SaturatingSettings


@lru_cache(maxsize=32)
def _code_values(layout: Layout) -> Tensor:
    magnitude = np.arange(2 ** (layout.bits - 1))
    field, mantissa = np.divmod(magnitude, 2**layout.mantissa_bits)
    implicit = np.where(field > 0, 2**layout.mantissa_bits, 0)
    exponent = layout.min_exponent + np.maximum(field - 1, 0) - layout.mantissa_bits
    values = np.ldexp((implicit + mantissa).astype(np.float64), exponent)
    for code in range(layout.max_code + 1, len(values)):
        values[code] = layout.value(code)
    return torch.from_numpy(np.concatenate((values, -values)).astype(np.float32))


class ExMy(Format):
    """The format of a :class:`Layout`, computed by the one rounding kernel.

    With ``overflow="special"`` a value that would round beyond the largest becomes NaN (``fn``) or
    inf (``ieee``) in :meth:`round` and :meth:`encode`. Rungs always saturate.
    """

    def __init__(
        self, name: str, layout: Layout, overflow: Overflow = "saturate", scaled: bool = True
    ) -> None:
        self.name = name
        self.bits = layout.bits
        self.scaled = scaled
        self.layout = layout
        self.overflow = overflow
        self.numbers = GridNumbers(
            mantissa_bits=layout.mantissa_bits,
            min_exponent=layout.min_exponent,
            max_value=layout.largest,
            overflow=layout.overflow_value if overflow == "special" else None,
        )

    def __repr__(self) -> str:
        return f"ExMy({self.name!r}, {self.layout}, overflow={self.overflow!r})"

    def code_values(self) -> Tensor:
        """See :class:`Format`; all codes at once, by the layout's definition."""
        return _code_values(self.layout).clone()

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", generator: torch.Generator | None = None
    ) -> Tensor:
        """See :class:`Format`."""
        return self._round(x, rounding, generator, None)

    def round_into(
        self,
        out: Tensor,
        x: Tensor,
        rounding: Rounding = "nearest",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :class:`Format`."""
        return self._round(x, rounding, generator, out)

    def _round(
        self, x: Tensor, rounding: Rounding, generator: torch.Generator | None, out: Tensor | None
    ) -> Tensor:
        self.check_dtype(x)
        check_rounding(rounding, generator)
        if generator is None or rounding == "nearest":
            return backends.round_nearest(x, self.numbers, out)
        return backends.round_stochastic(x, self.numbers, generator, out)

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
        """See :class:`Format`. In one launch on a GPU."""
        draws = None if check_rounding(rounding, generator) == "nearest" else generator
        if backend_for(x) == "triton":
            numbers = stated_numbers(self)  # none if a subclass rounds in a way of its own
            if numbers is not None:
                found = backends.round_scaled(x, scale, numbers, dtype, draws, keep_inf=keep_inf)
                if found is not None:
                    return found
        return super().round_scaled(x, scale, dtype, rounding, generator, keep_inf=keep_inf)

    def to_rung(self, x: Tensor) -> Tensor:
        """See :class:`Format`."""
        return kernel.rungs(x, self.numbers)

    def from_rung(self, rungs: Tensor) -> Tensor:
        """See :class:`Format`."""
        return kernel.values(rungs, self.numbers)

    def ulp(self, x: Tensor) -> Tensor:
        """``2^(max(floor(log2|x|), e_min) - M)``, with |x| no larger than the largest value.

        At a largest value that is a power of two (as with M = 0) this is twice the last gap.
        """
        self.check_dtype(x)
        return kernel.spacing(x, self.numbers)

    @property
    def max_finite(self) -> float:
        """See :class:`Format`."""
        return self.layout.largest

    @property
    def min_positive(self) -> float:
        """See :class:`Format`."""
        return self.layout.smallest_positive

    def facts(self) -> dict[str, object]:
        """See :class:`Format`."""
        return {**self.layout.facts(), "overflow": self.overflow}


def build_ladder(name: str, settings: OverflowSettings | SaturatingSettings) -> ExMy:
    """Build one of the eight formats of the ladder."""
    built = ExMy(name, LADDER[name], settings.overflow)
    built.native = NATIVE.get(name, "")
    return built


def build_exmy(name: str, settings: ExMySettings) -> ExMy:
    """Build the parametric format."""
    return ExMy(name, settings.layout(), settings.overflow)

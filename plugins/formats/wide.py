"""``bf16`` and ``fp32``: the baselines, as formats like any other. They are used at scale 1."""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.format import Format, Overflow, Rounding, check_rounding
from altgrad_core.interfaces.grid import compute_dtype
from altgrad_core.quantization.kernels import rounding as kernel
from altgrad_core.quantization.kernels.numbers import GridNumbers
from altgrad_plugins.formats.exmy import ExMy
from altgrad_plugins.formats.ladder import BF16
from altgrad_plugins.formats.settings import OverflowSettings


class BFloat16(ExMy):
    """bfloat16. Nearest rounding is the hardware's cast, behind a clamp where it saturates."""

    native = "bfloat16"

    def __init__(self, name: str, overflow: Overflow = "saturate") -> None:
        super().__init__(name, BF16, overflow, scaled=False)

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", generator: torch.Generator | None = None
    ) -> Tensor:
        """See :class:`Format`."""
        # A float64 would be cast by way of float32, that is, rounded twice.
        wide = compute_dtype(x) == torch.float64
        if rounding != "nearest" or wide or backend_for(x) != "eager":
            return super().round(x, rounding, generator)
        self.check_dtype(x)
        work = x.detach()
        if self.overflow == "saturate":
            work = work.clamp(-self.max_finite, self.max_finite)
        # Back by the bits: torch.compile takes a cast there and back for nothing, and removes it.
        bits = work.to(torch.bfloat16).view(torch.int16).to(torch.int32)
        return bits.bitwise_left_shift_(16).view(torch.float32).to(x.dtype)

    def to_rung(self, x: Tensor) -> Tensor:
        """See :class:`Format`. The rung is the bit pattern, read as sign and magnitude."""
        work = x.detach().to(compute_dtype(x)).nan_to_num(0.0, torch.inf, -torch.inf)
        if work.dtype == torch.float64:
            return super().to_rung(work)
        rounded = work.clamp_(-self.max_finite, self.max_finite).to(torch.bfloat16)
        return _signed(rounded.view(torch.int16).to(torch.int32), 0x7FFF)

    def exact_in(self, dtype: torch.dtype) -> bool:
        """See :class:`Format`."""
        return dtype in (torch.bfloat16, torch.float32, torch.float64)


class Float32(Format):
    """float32: rounding leaves every tensor but float64 as it is, save that inf saturates.

    Its 2^32 codes cannot be listed, so every method works on bits. Codes do not fit int32:
    :meth:`encode` returns int64. Rungs do.
    """

    bits = 32
    native = "float32"
    scaled = False

    def __init__(self, name: str, overflow: Overflow = "saturate") -> None:
        self.name = name
        self.overflow = overflow
        special = torch.inf if overflow == "special" else None
        self.numbers = GridNumbers(23, -126, self.max_finite, special)

    def __repr__(self) -> str:
        return f"Float32({self.name!r}, overflow={self.overflow!r})"

    def code_values(self) -> Tensor:
        """Raises ``NotImplementedError``: there are 2^32 codes."""
        raise NotImplementedError(
            f"{self.name} has 2^32 codes, too many to list. Ask decode() for the codes you need."
        )

    def round(
        self, x: Tensor, rounding: Rounding = "nearest", generator: torch.Generator | None = None
    ) -> Tensor:
        """See :class:`Format`. A float16 or bfloat16 tensor comes back unchanged."""
        check_rounding(rounding, generator)
        if compute_dtype(x) == torch.float64:
            if generator is None or rounding == "nearest":
                return kernel.round_nearest(x, self.numbers)
            return kernel.round_stochastic(x, self.numbers, generator)
        if self.overflow == "special" or x.dtype != torch.float32:
            return x.detach().clone()
        return x.detach().clamp(-self.max_finite, self.max_finite)

    def encode(self, x: Tensor) -> Tensor:
        """The code (int64) of each element: a float32's bits as a number from 0 to 2^32 - 1."""
        rounded = self.round(x.detach().to(compute_dtype(x))).to(torch.float32)
        codes = rounded.view(torch.int32).to(torch.int64).bitwise_and_(0xFFFFFFFF)
        return codes.masked_fill_(rounded.isnan(), 0x7FC00000)

    def decode(self, codes: Tensor) -> Tensor:
        """See :class:`Format`."""
        self.check_codes(codes)
        wide = codes.to(torch.int64)
        signed = torch.where(wide >= 2**31, wide - 2**32, wide)
        return signed.to(torch.int32).view(torch.float32)

    def to_rung(self, x: Tensor) -> Tensor:
        """See :class:`Format`. The rung is the bit pattern, read as sign and magnitude."""
        work = x.detach().to(compute_dtype(x))
        if work.dtype == torch.float64:
            work = kernel.round_nearest(work, self.numbers).to(torch.float32)
        finite = work.nan_to_num(0.0)  # and inf becomes the largest finite value
        return _signed(finite.view(torch.int32), 0x7FFFFFFF)

    def from_rung(self, rungs: Tensor) -> Tensor:
        """See :class:`Format`."""
        inside = rungs.to(torch.int64).clamp(-_TOP_RUNG, _TOP_RUNG).to(torch.int32)
        return inside.abs().bitwise_or_(inside & -(2**31)).view(torch.float32)

    def ulp(self, x: Tensor) -> Tensor:
        """See :class:`Format`. Raises ``TypeError`` for 16-bit tensors, which could not hold it."""
        self.check_dtype(x)
        return kernel.spacing(x, self.numbers)

    @property
    def max_finite(self) -> float:
        """See :class:`Format`."""
        return torch.finfo(torch.float32).max

    @property
    def min_positive(self) -> float:
        """See :class:`Format`."""
        return 2.0**-149

    def exact_in(self, dtype: torch.dtype) -> bool:
        """See :class:`Format`."""
        return dtype in (torch.float32, torch.float64)

    def facts(self) -> dict[str, object]:
        """See :class:`Format`."""
        return {"overflow": self.overflow}


_TOP_RUNG = 0x7F7FFFFF
"""The bit pattern of the largest finite float32."""


def _signed(bits: Tensor, magnitude: int) -> Tensor:
    """Two's complement of the sign-magnitude numbers in ``bits``, whose magnitude has that mask."""
    sign = bits >> 31  # 0 or -1; torch.where takes many times as long on the CPU
    return (bits & magnitude).bitwise_xor_(sign).sub_(sign)


def build_bf16(name: str, settings: OverflowSettings) -> BFloat16:
    """Build ``bf16``."""
    return BFloat16(name, settings.overflow)


def build_fp32(name: str, settings: OverflowSettings) -> Float32:
    """Build ``fp32``."""
    return Float32(name, settings.overflow)

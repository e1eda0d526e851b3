"""Per-tensor scales: the number that maps a tensor onto the grid, ``x ≈ scale · grid value``.

The exact scale is ``amax / max_finite``. By default it is rounded *up* to a power of two: then
dividing by it and multiplying with it are exact, nothing overflows, and every value of an 8-bit
grid stays exact in bfloat16. The power is found by comparing bit patterns; no logarithm and no
division can misplace it, so CPU and CUDA agree. Nothing here waits for the device.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.settings import ScalingSettings

_SMALLEST_NORMAL = 2.0**-126
_MANTISSA_BITS = 23
_BIAS = 127


def largest_magnitude(x: Tensor) -> Tensor:
    """``max |x|`` as a 0-d float32 tensor; NaN if there is one, 0 for a tensor without elements."""
    if x.numel() == 0:
        return torch.zeros((), device=x.device)
    return x.detach().abs().amax().float()


def scale_for(amax: Tensor, fmt: Format, *, power_of_two: bool) -> Tensor:
    """The scale (float32, shape of ``amax``) that maps magnitudes up to ``amax`` onto the grid.

    At least ``2^-126``, the smallest normal float32; a smaller amax counts as that. An amax of 0
    gives 1; inf and NaN are handed on, so that a broken tensor shows as one.
    """
    if power_of_two:
        scale = _power_of_two_at_least(amax, fmt.max_finite)
    else:
        # A tensor as divisor: CUDA replaces division by a Python number with a multiplication.
        scale = (amax / torch.full_like(amax, fmt.max_finite)).clamp_min(_SMALLEST_NORMAL)
    return torch.where((amax > 0) & (amax < torch.inf), scale, amax + 1)


def _power_of_two_at_least(amax: Tensor, largest: float) -> Tensor:
    """The smallest ``2^k`` with ``2^k · largest >= amax``, for ``k`` in ``[-126, 127]``.

    Bit patterns of positive floats are ``2^23 · exponent + mantissa``, so the ceiling of their
    difference over ``2^23`` is the difference of the exponents, plus one where amax has the larger
    mantissa: exactly the ``k`` that is looked for.
    """
    (bits,) = struct.unpack("<i", struct.pack("<f", largest))
    difference = amax.clamp_min(_SMALLEST_NORMAL).view(torch.int32) - bits
    exponent = (difference + (1 << _MANTISSA_BITS) - 1) >> _MANTISSA_BITS
    pattern: Tensor = (exponent.clamp_(-126, 127) + _BIAS) << _MANTISSA_BITS
    return pattern.view(torch.float32)


class Scaler:
    """Finds the scale of one tensor of a module.

    With ``mode: current`` it is taken from the tensor itself. With ``mode: delayed`` it is taken
    from the largest amax of the last ``history`` training forwards *before* this one, which a
    real kernel knows in time; what has grown since then saturates. Until there is a history, the
    tensor itself decides. The history is a buffer of the module, newest first, so it is part of
    the state dict.
    """

    def __init__(self, fmt: Format, settings: ScalingSettings, buffer: str) -> None:
        self.format = fmt
        self.settings = settings
        self.buffer = buffer

    @property
    def delayed(self) -> bool:
        """Whether there is a history."""
        return self.format.scaled and self.settings.mode == "delayed"

    def attach(self, module: nn.Module, device: torch.device) -> None:
        """Give ``module`` the buffer that delayed mode needs."""
        if self.delayed:
            history = torch.zeros(self.settings.history, device=device)
            module.register_buffer(self.buffer, history)

    def detach(self, module: nn.Module) -> None:
        """Take the buffer away again."""
        if self.delayed:
            delattr(module, self.buffer)

    def scale(
        self, module: nn.Module, x: Tensor, *, record: bool = False, same_step: bool = False
    ) -> Tensor:
        """The scale for ``x``: 0-d float32, on its device; 1 for a format that is not scaled.

        With ``record``, amax enters the history: as a new step, or into the newest with
        ``same_step``.
        """
        if not self.format.scaled:
            return torch.ones((), device=x.device)
        amax = largest_magnitude(x)
        basis = amax
        if self.delayed:
            history = module.get_buffer(self.buffer)
            past = history.amax().float()
            basis = torch.where(past > 0, past, amax)
            if record:
                _record(history, amax, same_step=same_step)
        return scale_for(basis, self.format, power_of_two=self.settings.power_of_two)

    def __str__(self) -> str:
        if not self.format.scaled:
            return "none"
        mode = self.settings.mode
        kind = f"delayed({self.settings.history})" if mode == "delayed" else mode
        return kind if self.settings.power_of_two else f"{kind}, exact"


def _record(history: Tensor, amax: Tensor, *, same_step: bool) -> None:
    if same_step:
        history[0].copy_(torch.maximum(history[0], amax))
    else:
        history.copy_(history.roll(1))
        history[0].copy_(amax)

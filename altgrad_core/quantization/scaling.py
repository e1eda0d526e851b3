"""Scales: the numbers that map a tensor onto the grid, ``x ≈ scale · grid value``.

The exact scale is ``amax · headroom / max_finite``. By default it is rounded *up* to a power of
two: then dividing by it and multiplying with it are exact, nothing overflows, and every value of an
8-bit grid stays exact in bfloat16. The power is found by comparing bit patterns; no logarithm and
no division can misplace it, so CPU and CUDA agree. Nothing here waits for the device.

One scale may stand for the whole tensor, for each row (its last dimension: the weights of an output
channel, the features of a token) or for each block of a row. A *compact* scale has one element for
each of these, with the shape of the tensor but for its last dimension.

Weights whose rows do not lie along the last dimension (kernels of convolutions, matrices that are
stored in × out) come with an *axis*, the dimension of their output channels: a row is then
everything that belongs to one output channel, in the order in which it is stored.
"""

from __future__ import annotations

import math
import struct

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels.backends import plain_on_cpu
from altgrad_core.quantization.settings import ScalingSettings

_SMALLEST_NORMAL = 2.0**-126
_LARGEST = torch.finfo(torch.float32).max
_MANTISSA_BITS = 23
_BIAS = 127


def largest_magnitude(x: Tensor) -> Tensor:
    """``max |x|`` as a 0-d float32 tensor; NaN if there is one, 0 for a tensor without elements."""
    if x.numel() == 0:
        return torch.zeros((), dtype=torch.float32, device=x.device)
    if plain_on_cpu(x):
        from altgrad_core.quantization.kernels import settling

        return settling.amax(x)
    if _has_kernel(x):
        from altgrad_core.quantization.kernels import gpu_scales

        return gpu_scales.amax(x)
    return x.detach().abs().amax().float()


def _has_kernel(x: Tensor) -> bool:
    """Whether a kernel on a GPU finds its largest magnitude."""
    return (
        backend_for(x) == "triton"
        and x.dtype != torch.float64
        and x.is_contiguous()
        and x.numel() > 0
    )


def compact_amax(x: Tensor, settings: ScalingSettings, axis: int | None = None) -> Tensor:
    """``max |x|`` for each part of ``x`` that has a scale of its own; float32.

    Shape: ``()`` per tensor, ``(..., 1)`` per row, ``(..., blocks)`` per block; the last block of a
    row may be shorter. With an ``axis``: per row that of ``x`` with 1 in every other dimension, per
    block ``(channels, blocks)``.
    """
    if settings.granularity == "tensor" or x.dim() == 0:
        return largest_magnitude(x)
    if axis is not None:
        compact = compact_amax(_rows(x, axis), settings)
        if settings.granularity == "block":
            return compact
        return compact.view([-1 if d == axis else 1 for d in range(x.dim())])
    if x.numel() == 0:
        parts = 1 if settings.granularity == "channel" else -(-x.shape[-1] // settings.block_size)
        return torch.zeros((*x.shape[:-1], parts), dtype=torch.float32, device=x.device)
    magnitude = x.detach().abs()
    if settings.granularity == "block":
        size = settings.block_size
        padded = F.pad(magnitude, (0, -x.shape[-1] % size))
        return padded.view(*x.shape[:-1], -1, size).amax(-1).float()
    return magnitude.amax(-1, keepdim=True).float()


def expanded(
    compact: Tensor, x: Tensor, settings: ScalingSettings, axis: int | None = None
) -> Tensor:
    """A compact scale as a tensor that broadcasts against ``x``."""
    if settings.granularity != "block" or compact.dim() == 0:
        return compact
    if axis is None:
        return compact.repeat_interleave(settings.block_size, -1)[..., : x.shape[-1]]
    channels_first = x.movedim(axis, 0)
    wide = expanded(compact, _rows(x, axis), settings)
    return wide.reshape(channels_first.shape).movedim(0, axis)


def _rows(x: Tensor, axis: int) -> Tensor:
    """``(output channels, what belongs to each)``."""
    return x.movedim(axis, 0).flatten(1)


def scale_for(amax: Tensor, fmt: Format, *, power_of_two: bool) -> Tensor:
    """The scale (float32, shape of ``amax``) that maps magnitudes up to ``amax`` onto the grid.

    At least ``2^-126``, the smallest normal float32; a smaller amax counts as that. At most what
    keeps the largest grid value finite in float32; a larger amax saturates. An amax of 0 gives 1;
    inf and NaN are handed on, so that a broken tensor shows as one.
    """
    if power_of_two:
        scale = power_of_two_at_least(amax, fmt.max_finite)
    else:
        # A tensor as divisor: CUDA replaces division by a Python number with a multiplication.
        scale = amax / torch.full_like(amax, fmt.max_finite)
        scale = scale.clamp(_SMALLEST_NORMAL, _largest_scale(fmt.max_finite))
    return torch.where((amax > 0) & (amax < torch.inf), scale, amax + 1)


def power_of_two_at_least(amax: Tensor, largest: float) -> Tensor:
    """The smallest ``2^k`` with ``2^k · largest >= amax``, for ``k`` in ``[-126, 127]``.

    Where ``2^k · largest`` would overflow float32, the largest ``2^k`` that does not.

    Bit patterns of positive floats are ``2^23 · exponent + mantissa``, so the ceiling of their
    difference over ``2^23`` is the difference of the exponents, plus one where amax has the larger
    mantissa: exactly the ``k`` that is looked for.
    """
    smallest, highest, ceiling = power_of_two_limits(largest)
    pattern = (amax.clamp(smallest, highest).view(torch.int32) + ceiling) & -(1 << _MANTISSA_BITS)
    return pattern.view(torch.float32)


def power_of_two_limits(largest: float) -> tuple[float, float, int]:
    """The ends of the amax that :func:`power_of_two_at_least` tells apart, and what it adds to the bits."""
    mantissa, exponent = math.frexp(largest)
    # as of a normal float, even where it is none
    bits = ((exponent - 1 + _BIAS) << _MANTISSA_BITS) + int(
        (2 * mantissa - 1) * (1 << _MANTISSA_BITS)
    )
    highest = min(127, 128 - exponent)
    smallest = max(_SMALLEST_NORMAL, math.ldexp(largest, -126))
    ceiling = (_BIAS << _MANTISSA_BITS) + (1 << _MANTISSA_BITS) - 1 - bits
    return smallest, math.ldexp(largest, highest), ceiling


def power_of_two_part(scale: Tensor) -> Tensor:
    """The largest power of two that is not above ``scale`` (positive, float32); inf for NaN and inf."""
    exponent = scale.view(torch.int32) & (0xFF << _MANTISSA_BITS)
    return exponent.view(torch.float32)


def _largest_scale(largest: float) -> float:
    """The largest float32 scale under which the grid value ``largest`` is finite in float32."""
    (bits,) = struct.unpack("<i", struct.pack("<f", min(_LARGEST / largest, _LARGEST)))
    (scale,) = struct.unpack("<f", struct.pack("<i", bits))
    below: float = struct.unpack("<f", struct.pack("<i", bits - 1))[0]
    return float(scale) if scale * largest <= _LARGEST else below


def headroom_of(fmt: Format, settings: ScalingSettings) -> float:
    """The headroom that is set, or, where none is, the format's own."""
    if settings.headroom is not None:
        return settings.headroom
    return fmt.headroom if fmt.scaled else 1.0


def own_scale(x: Tensor, fmt: Format) -> Tensor:
    """The power of two (float32, 0-d) that puts the amax of ``x`` where ``fmt`` wants it; else as
    :func:`scale_for`. 1 for a format that is not scaled.

    For tensors that no settings are about: what a rounding took away, a gradient that is only looked at.
    """
    if not fmt.scaled:
        return torch.ones((), dtype=torch.float32, device=x.device)
    return tensor_scale(x, fmt, fmt.headroom, power_of_two=True)


def tensor_scale(x: Tensor, fmt: Format, headroom: float, *, power_of_two: bool) -> Tensor:
    """:func:`roomy_scale` of the amax of ``x``; 0-d."""
    if power_of_two and _has_kernel(x):
        from altgrad_core.quantization.kernels import gpu_scales

        return gpu_scales.scale(x, headroom, power_of_two_limits(fmt.max_finite))
    return roomy_scale(largest_magnitude(x), fmt, headroom, power_of_two=power_of_two)


def roomy_scale(amax: Tensor, fmt: Format, headroom: float, *, power_of_two: bool) -> Tensor:
    """:func:`scale_for` of ``amax · headroom``."""
    if power_of_two and backend_for(amax) == "triton" and amax.is_contiguous():
        from altgrad_core.quantization.kernels import gpu_scales

        return gpu_scales.scales(amax, headroom, power_of_two_limits(fmt.max_finite))
    return scale_for(_roomy(amax, headroom), fmt, power_of_two=power_of_two)


def _roomy(amax: Tensor, headroom: float) -> Tensor:
    """``amax · headroom``, finite where amax is."""
    if headroom == 1.0:
        return amax
    return torch.where(amax.isfinite(), (amax * headroom).clamp_max(_LARGEST), amax)


class Scaler:
    """Finds the compact scale of one tensor of a module.

    With ``mode: current`` it is taken from the tensor itself. With ``mode: delayed`` it is taken
    from the amax of the last ``history`` training forwards *before* this one (the largest, or the
    most recent), which a real kernel knows in time; what has grown since then saturates. Until
    there is a history, the tensor itself decides. With ``mode: frozen`` the first training forward
    decides for good. What is remembered is a buffer of the module (``<tensor>_amax_history``, newest
    first; ``<tensor>_scale``), so it is part of the state dict.
    """

    def __init__(
        self, fmt: Format, settings: ScalingSettings, tensor: str, axis: int | None = None
    ) -> None:
        self.format = fmt
        self.settings = settings
        self.headroom = headroom_of(fmt, settings)
        self.axis = axis
        self.buffer = f"{tensor}_scale" if self.frozen else f"{tensor}_amax_history"

    @property
    def delayed(self) -> bool:
        """Whether there is a history."""
        return self.format.scaled and self.settings.mode == "delayed"

    @property
    def frozen(self) -> bool:
        """Whether the first scale stays."""
        return self.format.scaled and self.settings.mode == "frozen"

    def attach(self, module: nn.Module, like: Tensor) -> None:
        """Give ``module`` the buffer that the mode needs. ``like``: the tensor, or one on its device."""
        if not (self.delayed or self.frozen):
            return
        empty = torch.zeros_like(self.amax(like))
        if self.delayed:
            empty = empty.expand(self.settings.history, *empty.shape).clone()
        module.register_buffer(self.buffer, empty)

    def detach(self, module: nn.Module) -> None:
        """Take the buffer away again."""
        if self.delayed or self.frozen:
            delattr(module, self.buffer)

    def forget(self, module: nn.Module) -> None:
        """Empty the buffer: the tensors that come are not those that it remembers."""
        for name in self.buffers():
            module.get_buffer(name).zero_()

    def buffers(self) -> tuple[str, ...]:
        """Names of the buffers that :meth:`attach` gives a module."""
        return (self.buffer,) if self.delayed or self.frozen else ()

    def amax(self, x: Tensor) -> Tensor:
        """``max |x|`` for each part that has a scale of its own, compact."""
        return compact_amax(x, self.settings, self.axis)

    def expanded(self, compact: Tensor, x: Tensor) -> Tensor:
        """A compact scale as a tensor that broadcasts against ``x``."""
        return expanded(compact, x, self.settings, self.axis)

    def past(self, module: nn.Module) -> Tensor | None:
        """The amax (compact, float32) that the history stands for now; None without a history."""
        if not self.delayed:
            return None
        history = module.get_buffer(self.buffer)
        # A copy, even if the history is read as it is: it goes on, and this must not.
        return history[0].clone() if self.settings.reduction == "recent" else history.amax(0)

    def scale(
        self,
        module: nn.Module,
        x: Tensor,
        *,
        record: bool = False,
        same_step: bool = False,
        past: Tensor | None = None,
    ) -> Tensor:
        """The compact scale for ``x``: float32, on its device; 1 for a format that is not scaled.

        With ``record``, the mode's buffer takes ``x`` in: as a new step, or into the newest with
        ``same_step``. ``past`` is what a delayed scale goes by; None takes :meth:`past` of now.
        """
        if not self.format.scaled:
            return torch.ones((), dtype=torch.float32, device=x.device)
        if self.settings.granularity == "tensor" and not (self.delayed or self.frozen):
            power_of_two = self.settings.power_of_two
            return tensor_scale(x, self.format, self.headroom, power_of_two=power_of_two)
        amax = self.amax(x)
        if self.delayed:
            amax = self._delayed(module, amax, past, record=record, same_step=same_step)
        fresh = self.fresh(amax)
        if not self.frozen:
            return fresh
        kept = module.get_buffer(self.buffer)
        sound = amax.isfinite()  # what is broken shows as such, and decides nothing for good
        if record:
            kept.copy_(torch.where((kept > 0) | ~sound | (amax == 0), kept, fresh))
        return torch.where((kept > 0) & sound, kept, fresh)

    def fresh(self, amax: Tensor) -> Tensor:
        """The scale for that ``amax``, headroom included."""
        power_of_two = self.settings.power_of_two
        return roomy_scale(amax, self.format, self.headroom, power_of_two=power_of_two)

    def _delayed(
        self,
        module: nn.Module,
        amax: Tensor,
        past: Tensor | None,
        *,
        record: bool,
        same_step: bool,
    ) -> Tensor:
        if past is None:
            past = self.past(module)
        assert past is not None
        if record:
            history = module.get_buffer(self.buffer)
            seen = torch.where(amax.isfinite(), amax, 0.0)  # a broken step must not break the next
            if same_step:
                history[0].copy_(torch.maximum(history[0], seen))
            else:
                history.copy_(history.roll(1, 0))
                history[0].copy_(seen)
        # and it must show as one, instead of saturating in silence
        return torch.where((past > 0) & amax.isfinite(), past, amax)

    def __str__(self) -> str:
        if not self.format.scaled:
            return "none"
        settings = self.settings
        mode: str = settings.mode
        if mode == "delayed":
            mode = (
                f"delayed({settings.history}{', recent' if settings.reduction == 'recent' else ''})"
            )
        part = {"tensor": "", "channel": " per channel", "block": f" per {settings.block_size}"}
        exact = "" if settings.power_of_two else ", exact"
        room = "" if self.headroom == 1.0 else f", headroom {self.headroom:g}"
        return f"{mode}{part[settings.granularity]}{exact}{room}"

"""Kahan compensation: what rounding took from each weight is kept, and added to the next target.

Kahan 1965; for bfloat16 weights Zamirai et al. 2020, arXiv:2010.06192::

    target = w + Δw + e        w' = scale · round(target / scale)        e' = round_c(target − w')

with ``round_c`` to the compensation's own format, at a power-of-two scale if that format needs one.
Where the optimizer has put ``w + Δw`` exactly on a grid value, it stays, and ``e`` with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels.packing import packed, unpacked
from altgrad_core.quantization.marks import Mark, mark_of
from altgrad_core.quantization.resident.fitting import holds
from altgrad_core.quantization.scaling import own_scale


def buffers_of(parameter: str) -> tuple[str, str]:
    """Names of the error, in as many bits as its format has, and of its scale, if that format needs one."""
    return f"{parameter}_compensation", f"{parameter}_compensation_scale"


def buffer_of(module: nn.Module, name: str) -> Tensor:
    """``module.get_buffer(name)`` in a thirtieth of the time, which counts for every weight in every step."""
    found = module._buffers.get(name)
    return module.get_buffer(name) if found is None else found


class Compensation:
    """What ``fmt`` keeps for one parameter of a module, in buffers of the module."""

    def __init__(self, parameter: str, fmt: Format) -> None:
        self.format = fmt
        self.buffer, self._scale = buffers_of(parameter)
        self._left: tuple[Mark, Mark] | None = None
        """Weight and compensation, as they were when they last belonged together."""

    def of(self, module: nn.Module, like: Tensor) -> Tensor:
        """The error of each weight, in the dtype of ``like``."""
        kept = unpacked(module.get_buffer(self.buffer), self.format)
        if self.format.scaled:
            kept = kept * module.get_buffer(self._scale)
        return kept.to(like.dtype)

    def keep(self, module: nn.Module, error: Tensor) -> None:
        """Write down an error; 0 for what is not finite."""
        self.store(module, error.nan_to_num(0.0, 0.0, 0.0))

    def store(self, module: nn.Module, error: Tensor, *, unless: Tensor | None = None) -> None:
        """Write down one that is finite and nobody else's; where ``unless`` (0-d) holds, what is there stays."""
        if self.format.scaled:
            scale = own_scale(error, self.format)
            _put(module, self._scale, scale, unless)
            error = error / scale
        rounded = self.format.round_into(error, error)
        _put(module, self.buffer, packed(rounded, self.format), unless)

    def begin(self, module: nn.Module, weight: Tensor) -> None:
        """Drop the error of a weight that something else has written since the last mark.

        Seen are in-place operations and new tensors behind ``.data``, where the compensation was
        not written along; not operations in place on ``.data``. Waits for nothing.
        """
        if self._left is not None:
            now, error = self._marks(module, weight)
            if now != self._left[0] and error == self._left[1]:
                self.keep(module, torch.zeros_like(weight))

    def mark(self, module: nn.Module, weight: Tensor) -> None:
        """Weight and compensation belong together as they are now."""
        self._left = self._marks(module, weight)

    def _marks(self, module: nn.Module, weight: Tensor) -> tuple[Mark, Mark]:
        return mark_of(weight), mark_of(buffer_of(module, self.buffer))


@dataclass(frozen=True)
class Held:
    """The error of a weight before it is rounded, and which elements are at rest."""

    error: Tensor
    rest: Tensor

    def left(self, target: Tensor, settled: Tensor) -> Tensor:
        """The error after rounding ``target`` to ``settled``: finite, and nobody else's."""
        taken = target - settled
        return torch.where(self.rest, self.error + taken, taken).nan_to_num_(0.0, 0.0, 0.0)

    def stays(self, skipped: Tensor | None) -> Tensor:
        """Whether what is written down stays as it is: 0-d. ``skipped``: not 0 in a skipped step."""
        resting = self.rest.all()
        return resting if skipped is None else resting | (skipped.reshape(()) != 0)


def with_error(fmt: Format, moved: Tensor, scale: Tensor, error: Tensor) -> tuple[Tensor, Held]:
    """What is to be rounded: the weight as it was ``moved``, with its error where it is not at rest.

    scale:
        broadcasts against the weight; 1 for a format that is not scaled.
    """
    rest = holds(fmt, moved, scale)
    return torch.where(rest, moved, moved + error), Held(error, rest)


def _put(module: nn.Module, name: str, value: Tensor, unless: Tensor | None = None) -> None:
    """Register a buffer, or write into the one that is there, unless ``unless`` holds."""
    if name in module._buffers:
        kept = module.get_buffer(name)
        kept.copy_(value if unless is None else torch.where(unless, kept, value))
    else:
        module.register_buffer(name, value)

"""What compensation holds of a weight while it is rounded: from the error before to the error after."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels.backends import plain_on_cpu
from altgrad_core.quantization.resident.fitting import holds


@dataclass(frozen=True)
class Held:
    """The error of a weight before it is rounded, and which elements are at rest.

    Where kernels have looked, ``rest`` is None, and the error is what the last of them takes.
    """

    error: Tensor
    rest: Tensor | None
    none_moves: bool = False
    """Whether all elements are known to be at rest, so that nothing is to be written down."""

    def left(self, target: Tensor, settled: Tensor) -> Tensor:
        """The error after rounding ``target`` to ``settled``: finite, and nobody else's."""
        if self.rest is None:
            from altgrad_core.quantization.kernels import settling

            return settling.left_over(self.error, target, settled)
        taken = target - settled
        return torch.where(self.rest, self.error + taken, taken).nan_to_num_(0.0, 0.0, 0.0)

    def stays(self, skipped: Tensor | None) -> Tensor | None:
        """Whether what is written down stays as it is: 0-d; None for no. ``skipped``: not 0 in a skipped step."""
        ways = [] if self.rest is None else [self.rest.all()]
        ways += [] if skipped is None else [skipped != 0]
        return torch.stack([way.reshape(()) for way in ways]).any() if ways else None


def with_error(fmt: Format, moved: Tensor, scale: Tensor, error: Tensor) -> tuple[Tensor, Held]:
    """What is to be rounded: the weight as it was ``moved``, with its error where it is not at rest.

    scale:
        broadcasts against the weight; 1 for a format that is not scaled.
    """
    if scale.dim() == 0 and plain_on_cpu(moved) and plain_on_cpu(error):
        from altgrad_core.quantization.kernels import settling

        inside = settling.divided(moved, scale, (-math.inf, math.inf))
        rounded = fmt.round_into(inside, inside)
        target, kept, none_moves = settling.compensated(moved, rounded, scale, error)
        return target, Held(kept, None, none_moves)
    rest = holds(fmt, moved, scale)
    return torch.where(rest, moved, moved + error), Held(error, rest)

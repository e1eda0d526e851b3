"""What compensation holds of a weight while it is rounded: from the error before to the error after."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.resident.fitting import holds


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

"""The placebos of the stiffness: the values of S on the wrong weights, and those of another grid.

A manifold update may gain because each step fits the gap at its own weight, or merely because the
steps of a tensor are of unequal size. With ``stiffness: permuted`` every weight gets the S of
another weight of its tensor: the same values, which change as those of the grid do, and the same
sizes of steps, but nothing fits. What is left of a gain then is not the geometry's.

It may also gain with no grid at all, because steps in proportion to the weight suit the task. With
``stiffness: borrowed`` each weight gets the S that it would have on the grid of another format. On
weights that are on no 8-bit grid (``bf16``, ``fp32``), that is what the geometry gives by itself;
what a format gains beyond it needs the grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from altgrad_core import load_format
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.quantization.scaling import own_scale
from altgrad_core.quantization.settings import FormatChoice


class Permutations:
    """Shuffles the elements of each weight by a permutation of its own, which never changes.

    It follows from the name of the parameter and nothing else, so it is the same for every seed, on
    every device and after a restart, and no generator of the run is touched. It is drawn when it is
    first used and kept beside the weight as int32, 4 bytes per weight, in no checkpoint.
    """

    def __init__(self, geometry: Mapping[nn.Parameter, WeightGeometry]) -> None:
        self._geometry = geometry
        self._indices: dict[nn.Parameter, Tensor] = {}

    def shuffled(self, parameter: nn.Parameter, values: Tensor) -> Tensor:
        """``values``, one per element of the parameter, in the order of its permutation."""
        index = self._indices.get(parameter)
        if index is None or index.device != values.device:
            name = self._geometry[parameter].name
            index = permutation(name, values.numel()).to(values.device)
            self._indices[parameter] = index
        return values.flatten().index_select(0, index).view(values.shape)


class Borrowed:
    """The stiffness of a format on weights that are not on its grid.

    The scale is what a master weight of that format has by default: per tensor, of this step's
    amax, a power of two, with the headroom that the format wants. Raises ``UserError`` for a format
    that cannot be built.
    """

    def __init__(self, choice: FormatChoice) -> None:
        self._format = load_format(choice.name, **choice.settings)

    def gaps(self, weight: Tensor) -> Tensor:
        """``scale · ulp(weight / scale)``; shape and dtype of ``weight``."""
        if not self._format.scaled:
            return self._format.ulp(weight)
        scale = own_scale(weight, self._format)
        return (self._format.ulp(weight / scale) * scale).to(weight.dtype)


def permutation(name: str, count: int) -> Tensor:
    """The permutation of ``count`` elements that belongs to ``name``; int32, on the CPU."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, dtype=torch.int32, generator=generator)

"""The stiffness S of each weight: the spacing of its grid at the place where it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.quantization.kernels.numbers import GridNumbers
from altgrad_plugins.optimizers.placebos import Borrowed, Permutations
from altgrad_plugins.optimizers.rms import level_, normalize_rms_
from altgrad_plugins.optimizers.settings import StiffnessSettings

_TINY = 2.0**-126
_EXPONENT_MASK = 0x7F800000


class Stiffness:
    """Computes S for a list of weights.

    ``grid``:
        ``S(w) = scale · 2^(max(floor(log2(|w| / scale)), e_min) − M)`` or whatever the format's
        own gap at ``w`` is: ``WeightGeometry.ulp``.
    ``textbook``:
        ``2^(floor(log2|w|) − M)``, which knows neither scale nor subnormals; for comparison. Below
        ``2^-126``, at zero in particular, it is taken to be what it is at ``2^-126``.
    ``permuted``:
        that of the grid, but each weight has the S of another weight of its tensor: a placebo.
    ``constant``:
        all weights of a tensor have the root mean square of what the grid gives them.
    ``borrowed``:
        that of the grid of another format, ``borrowed_format``, on which the weight is not.

    Raises ``UserError`` if the textbook's M is asked for and a format has no ``mantissa_bits``
    (an attribute of its own, or of its ``numbers``, a ``GridNumbers``).
    """

    def __init__(
        self, settings: StiffnessSettings, geometry: Mapping[nn.Parameter, WeightGeometry]
    ) -> None:
        self._settings = settings
        self._geometry = geometry
        self._permutations = Permutations(geometry)
        choice = settings.borrowed_format
        self._borrowed = Borrowed(choice) if choice is not None else None
        self._mantissa_bits: dict[nn.Parameter, int] = {}
        if settings.stiffness == "textbook":
            self._mantissa_bits = {p: _mantissa_bits(g) for p, g in geometry.items()}

    def __call__(self, params: Sequence[nn.Parameter]) -> list[Tensor]:
        """S of each element of each weight, normalised and limited as the settings say."""
        stiffness = [self._raw(p) for p in params]
        if self._settings.stiffness == "constant":
            level_(stiffness)
        if self._settings.normalize == "rms":
            normalize_rms_(stiffness)
        if self._settings.max_stiffness is not None:
            torch._foreach_clamp_max_(stiffness, self._settings.max_stiffness)
        return stiffness

    def _raw(self, parameter: nn.Parameter) -> Tensor:
        weight = parameter.detach()
        if self._settings.stiffness == "textbook":
            return textbook_stiffness(weight, self._mantissa_bits[parameter])
        if self._borrowed is not None:
            return self._borrowed.gaps(weight)
        gaps = self._geometry[parameter].ulp(weight)
        if self._settings.stiffness == "permuted":
            return self._permutations.shuffled(parameter, gaps)
        return gaps


def textbook_stiffness(weight: Tensor, mantissa_bits: int) -> Tensor:
    """``2^(floor(log2|w|) − M)``, from the bits of ``w``; shape and dtype of ``weight``."""
    bits = weight.float().view(torch.int32) & _EXPONENT_MASK
    return bits.view(torch.float32).clamp_min_(_TINY).mul_(2.0**-mantissa_bits).to(weight.dtype)


def _mantissa_bits(geometry: WeightGeometry) -> int:
    """Of the format itself, or of the numbers that it hands to the rounding kernel."""
    fmt = geometry.format
    numbers = getattr(fmt, "numbers", None)
    source = numbers if isinstance(numbers, GridNumbers) else fmt
    bits = getattr(source, "mantissa_bits", None)
    if not isinstance(bits, int):
        raise UserError(
            f"optimizer.stiffness: textbook needs the number of mantissa bits, which the format "
            f"{fmt.name!r} of {geometry.name} does not have. Use stiffness: grid, which "
            f"works with every format."
        )
    return bits

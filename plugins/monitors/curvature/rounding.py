"""How far rounding moves each element of a weight, squared: realised, and expected."""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.geometry import WeightGeometry


def nearest_value(geometry: WeightGeometry, weight: Tensor) -> Tensor:
    """The grid value (float32) that each element of ``weight`` rounds to; NaN for NaN."""
    return torch.where(weight.isnan(), weight, geometry.value(geometry.rung(weight)))


def nearest_square(geometry: WeightGeometry, weight: Tensor) -> Tensor:
    """``(ŵ − w)²`` when ``w`` is rounded to nearest: float64, shape of ``weight``."""
    return (nearest_value(geometry, weight).double() - weight.double()).square()


def expected_square(geometry: WeightGeometry, weight: Tensor) -> Tensor:
    """``E (ŵ − w)²`` when ``w`` is rounded stochastically: S² p (1 − p).

    ``S`` is the gap between the two neighbours and ``p`` where ``w`` lies in it. With ``d`` the
    distance to the nearer one that is ``d (S − d)``. Beyond the last grid value there is but one
    neighbour, and it is ``d²``. float64, shape of ``weight``.
    """
    nearest = nearest_value(geometry, weight).double()
    within = weight.double() - nearest
    rungs = geometry.rung(weight) + within.nan_to_num().sign().to(torch.int32)
    gap = (geometry.value(rungs).double() - nearest).abs()
    distance = within.abs()
    return torch.where(gap == 0, distance.square(), distance * (gap - distance))

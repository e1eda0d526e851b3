"""How each role of a tensor is quantised: weight, activation (the input of a layer), gradient."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.settings import Residency, ScalingSettings


@dataclass(frozen=True)
class WeightRole:
    """Where weights live and how they are rounded; each layer has a format of its own.

    residency:
        ``master``: the parameter is a float32 master, rounded when it is used. ``grid``: the
        parameter is always a grid value times its scale, see :mod:`altgrad_core.quantization.resident.weight`.
    rounding:
        of the update (grid), or of the weight in training forwards (master).
    compensation:
        the format of the Kahan buffer, grid only; None keeps none.
    native:
        whether products take the codes of the weight, in the dtype that its format declares.
    """

    residency: Residency = "master"
    rounding: Rounding = "nearest"
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    compensation: Format | None = None
    native: bool = False


@dataclass(frozen=True)
class TensorRole:
    """How inputs, or gradients, are rounded. ``native``: whether products take their codes."""

    format: Format
    scaling: ScalingSettings = field(default_factory=ScalingSettings)
    rounding: Rounding = "nearest"
    native: bool = False


@dataclass(frozen=True)
class Roles:
    """All roles of a model. ``generator`` is what stochastic rounding in forward and backward draws from."""

    weight: WeightRole = field(default_factory=WeightRole)
    activation: TensorRole | None = None
    gradient: TensorRole | None = None
    generator: torch.Generator | None = None

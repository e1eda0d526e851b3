"""Counts of flips and stalls: of some weights on a GPU by one kernel together, of all others by operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.monitor import StepView
from altgrad_core.quantization.geometry import ParameterGeometry, scales_of
from altgrad_core.quantization.kernels.stated import stated_numbers
from altgrad_core.quantization.resident.table import bits
from altgrad_plugins.monitors.geometry.ladders import offladder


class Around(NamedTuple):
    """What a kernel needs of a weight from before its update, beside the weight: its scale and its grid."""

    scale: Tensor
    grid: tuple[int, int, int]
    """Bits of the largest value, the field of the lowest binade where a float32 has it, mantissa bits."""


def around(step: StepView, name: str) -> Around | None:
    """Asked before the update; None for a weight that no kernel counts.

    The kernel takes float32 on a GPU with one scale, on the grid of a format that rounds by the numbers it states.
    """
    geometry = step.weights[name]
    weight = geometry.parameter
    if backend_for(weight) != "triton" or weight.dtype != torch.float32 or not weight.numel():
        return None
    numbers = stated_numbers(geometry.format)
    if numbers is None or not numbers.fits_float32 or not geometry.format.scaled:
        return None
    scale = geometry.scale() if type(geometry) is ParameterGeometry else None
    if scale is None or scale.dim() or scale.dtype != torch.float32:
        return None
    lowest = (numbers.min_exponent + 127) << 23
    return Around(scale.clone(), (bits(numbers.max_value), lowest, numbers.mantissa_bits))


def counted(step: StepView, weights: Mapping[str, Around]) -> dict[str, Tensor]:
    """Of each weight its flips, stalls and intended updates: float64 ``(3,)``, NaN if any of it is on no rung."""
    if not weights:
        return {}
    from altgrad_plugins.monitors.geometry.gpu_flips import Update, count

    updates = []
    geometries = [step.weights[name] for name in weights]
    after_it = scales_of([one for one in geometries if isinstance(one, ParameterGeometry)])
    for (name, (scale, grid)), geometry, new in zip(
        weights.items(), geometries, after_it, strict=True
    ):
        tensors = step.weight_before(name), geometry.parameter, step.weight_intended(name)
        before, after, intended = (one.detach().contiguous().resolve_neg() for one in tensors)
        updates.append(Update(before, after, intended, scale, new, geometry.resident, grid))
    return dict(zip(weights, count(updates).unbind(), strict=True))


def by_operators(step: StepView, name: str) -> Tensor:
    """The same of one weight, with ``rung_before`` asked for before the update."""
    moved = (step.weight_intended(name) != step.weight_before(name)) & ~step.rescaled(name)
    same = step.rung_after(name) == step.rung_before(name)
    masks = ~same, moved & same, moved
    return torch.stack([torch.count_nonzero(mask) for mask in masks]) + offladder(step, name)

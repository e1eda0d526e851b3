"""Where weights stand on their ladders, and which ladder it is."""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import StepView
from altgrad_plugins.monitors.geometry.statistics import spoilt


def grid_key(fmt: Format) -> str:
    """What tells one grid from another, in a checkpoint too: name, width and range.

    A weight can be moved to another format within a run; what was kept about its rungs is then void.
    """
    return f"{fmt.name} {fmt.bits} {fmt.min_positive!r} {fmt.max_finite!r}"


def ends(fmt: Format) -> tuple[float, float]:
    """The outermost grid values, asked for on the CPU: the lower one is 0 where none is negative."""
    lowest = fmt.from_rung(fmt.to_rung(torch.tensor([-torch.inf])))
    return min(float(lowest), 0.0), fmt.max_finite


def intended_rung(step: StepView, name: str) -> Tensor:
    """The rung that the intended weight rounds to, to nearest, under the scale now in force."""
    geometry = step.weights[name]
    if geometry.resident:
        return geometry.rung(step.weight_intended(name))
    return step.rung_after(name)


def offladder(step: StepView, name: str) -> Tensor:
    """NaN if a weight was, is, or was meant to be NaN or inf, which is on no rung; else 0.

    To be added to counts of rungs, which take NaN for a zero. Float64, 0-d. Only in ``after_update``, with
    ``weight_before`` asked for before it.
    """
    weights = (step.weight_before(name), step.weight_intended(name))
    return torch.stack([spoilt(weight) for weight in weights]).sum()


def offset(geometry: WeightGeometry, weight: Tensor, rung: Tensor) -> Tensor:
    """``(w − v) / S(w)``: the way from the grid value ``v`` on ``rung`` to the weight, in its gaps."""
    return (weight - geometry.value(rung)) / geometry.ulp(weight)


def sign_bounds(fmt: Format) -> tuple[int, int]:
    """The highest rung of a negative value and the lowest of a positive one. Asked on the CPU.

    They are -1 and 1 where the grid has a zero; without one, rung 0 is on one of the two sides.
    """
    middle = float(fmt.from_rung(torch.zeros(1, dtype=torch.int32)))
    return -int(middle >= 0), int(middle <= 0)

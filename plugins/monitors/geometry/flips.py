"""Flips and stalls: which updates of the weights reach the grid.

Let ``w`` be a weight before the update, ``u`` where the optimizer wanted it, and ``k`` and ``k'``
its rungs before and after, both under one scale. For a master ``u`` is the new weight, and ``k'``
the rung that it rounds to; a resident weight is rounded back to its grid, and ``k'`` is its new
rung. Over the ``n`` elements of a layer, in this one step:

=================  =============================================  =====
``flips``          #{k' ≠ k}                                      count
``flip_ratio``     flips / n                                      –
``stalls``         #{u ≠ w and k' = k}                            count
``stall_ratio``    stalls / #{u ≠ w}; NaN when 0 / 0              –
``scale_changes``  resident weights only: how often their scales  count
                   have changed since the start
=================  =============================================  =====

``u − w`` is the intended update, so a stall is a non-zero intended update that left the rung
unchanged: ``round(b + Δb) = b``. Elements whose scale changed in the step are in none of these but
``n`` and ``scale_changes``. A NaN or inf, which is on no rung, makes a layer NaN.
``all`` sums the counts over the watched layers and divides the sums.
Nothing but ``scale_changes`` is accumulated: what happened in the steps between two measurements is
not in these numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Observation, StepView
from altgrad_plugins.monitors.geometry.counting import Around, around, by_operators, counted
from altgrad_plugins.monitors.geometry.settings import FlipsSettings
from altgrad_plugins.monitors.layers import (
    ALL,
    LayerMonitor,
    counts_and_rates,
    per_layer,
    with_total,
)


class FlipsMonitor(LayerMonitor):
    """``flips/<layer>/{flips, flip_ratio, stalls, stall_ratio}``, of the observed step only."""

    def __init__(self, settings: FlipsSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._compiled: dict[str, Around] = {}
        """The weights that a kernel counts in the step that is looked at."""

    def before_update(self, step: StepView) -> Observation | None:
        """Keep the old weights and rungs."""
        found = {name: around(step, name) for name in self.layers}
        self._compiled = {name: one for name, one in found.items() if one is not None}
        for name in self.layers:
            step.weight_before(name)
            if name not in self._compiled:
                step.rung_before(name)
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Compare with the new ones."""
        if not self.layers:
            return None
        compiled = counted(step, self._compiled)
        counts = [
            compiled[name] if name in compiled else by_operators(step, name) for name in self.layers
        ]
        flips, *stalls = torch.stack(counts, 1)
        sizes = {name: step.weight_before(name).numel() for name in self.layers}
        by_layer = dict(zip(self.layers, flips.unbind(), strict=True))
        metrics = counts_and_rates("flips", "flips", "flip_ratio", by_layer, sizes)
        stalled, intended = map(with_total, stalls)
        names = [*self.layers, ALL]
        metrics |= per_layer("flips", "stalls", names, stalled)
        metrics |= per_layer("flips", "stall_ratio", names, stalled / intended)
        return Observation(metrics | self._scale_changes(step))

    def _scale_changes(self, step: StepView) -> dict[str, float | Tensor]:
        resident = [name for name in self.layers if step.weights[name].resident]
        if not resident:
            return {}
        changes = torch.stack([step.weights[name].scale_changes() for name in resident])
        return per_layer("flips", "scale_changes", [*resident, ALL], with_total(changes))

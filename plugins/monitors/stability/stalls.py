"""Stalls, predicted and realised: updates that rounding to nearest would lose, and what became of them.

Let ``w`` be a weight before the update, ``u`` where the optimizer wanted it, ``k`` and ``k'`` its
rungs before and after, and ``b = v(k)`` its grid value. The update is *predicted* to stall when a
weight on the grid, rounded to nearest, would not move: ``round(b + (u − w)) = b`` with ``u ≠ w``. It
*is realised* as a stall when ``k' = k`` with ``u ≠ w``: that is what ``flips`` counts as ``stalls``. For a
resident weight ``b = w``, and with rounding to nearest the two agree. They part where something else
decides: stochastic rounding, Kahan compensation, or a master, which adds up what the grid would lose. Over the
``n`` elements of a layer, in this one step:

====================  ======================================================================  =====
``predicted``         #{predicted}                                                            count
``predicted_ratio``   predicted / #{u ≠ w}; NaN when 0 / 0                                    –
``rescued``           #{predicted and k' ≠ k}: moved although nearest would have lost it      count
``rescued_ratio``     rescued / predicted; NaN when 0 / 0                                     –
``unpredicted``       #{u ≠ w, not predicted, and k' = k}: lost although nearest would have   count
                      moved it
``zero_updates``      #{u = w}: no update was intended                                        count
``zero_ratio``        zero_updates / n                                                        –
====================  ======================================================================  =====

So ``flips``' stalls are ``predicted − rescued + unpredicted``. Elements whose scale changed in the step are in
none of these but ``zero_updates`` and ``n``. A NaN or inf, which is on no rung, makes a layer NaN. ``all``
sums the counts over the watched layers and divides the sums.

Event ``stall``, once for each layer: more than ``threshold`` of the intended updates were realised as
stalls in ``patience`` measurements in a row (those without an intended update do not count). For resident
weights, unless ``masters`` says otherwise: of a master, most updates of a single step stay below a rung in the
best of trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Event, Observation, StepView
from altgrad_plugins.monitors.geometry.ladders import offladder
from altgrad_plugins.monitors.layers import (
    ALL,
    LayerMonitor,
    counts_and_rates,
    per_layer,
    with_total,
)
from altgrad_plugins.monitors.stability.alarms import STALL, Alarms
from altgrad_plugins.monitors.stability.settings import StallsSettings


class StallsMonitor(LayerMonitor):
    """``stalls/<layer>/{predicted, rescued, unpredicted, zero_updates}`` and ratios; event ``stall``."""

    def __init__(self, settings: StallsSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._threshold = settings.threshold
        self.waits = settings.threshold is not None  # events
        self._masters = settings.masters
        self._watch = StallWatch(settings.threshold or 1.0, settings.patience)
        self._alarms = Alarms()

    def before_update(self, step: StepView) -> Observation | None:
        """Keep the old weights and rungs."""
        for name in self.layers:
            step.weight_before(name)
            step.rung_before(name)
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Compare what was predicted with what happened."""
        if not self.layers:
            return None
        counts = torch.stack([_counts(step, name) for name in self.layers], 1)
        predicted, rescued, unpredicted, zero, intended, stalled = map(with_total, counts)
        names, sizes = [*self.layers, ALL], {n: step.rung_before(n).numel() for n in self.layers}
        metrics = per_layer("stalls", "predicted", names, predicted)
        metrics |= per_layer("stalls", "predicted_ratio", names, predicted / intended)
        metrics |= per_layer("stalls", "rescued", names, rescued)
        metrics |= per_layer("stalls", "rescued_ratio", names, rescued / predicted)
        metrics |= per_layer("stalls", "unpredicted", names, unpredicted)
        zeros = dict(zip(self.layers, zero[:-1].unbind(), strict=True))
        metrics |= counts_and_rates("stalls", "zero_updates", "zero_ratio", zeros, sizes)
        return Observation(metrics, self._events(step, stalled / intended))

    def state_dict(self) -> dict[str, Any]:
        """How long each layer has been above the threshold, and which events were raised."""
        return {"rows": self._watch.state(), "raised": self._alarms.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._watch.load(state["rows"])
        self._alarms.load(state["raised"])

    def _events(self, step: StepView, ratios: Tensor) -> list[Event]:
        """Layers that have stalled for long. Reads the ratios: one transfer, in the interval."""
        judged = [
            index
            for index, name in enumerate(self.layers)
            if self._masters or step.weights[name].resident
        ]
        if not self._threshold or not judged:
            return []
        values = ratios.tolist()
        found = {self.layers[index]: values[index] for index in judged}
        return self._alarms.new(
            Event(STALL, name, self._watch.message(found[name], step.step))
            for name in self._watch.take(found)
        )


class StallWatch:
    """Counts measurements in a row in which a layer's stall ratio is above ``threshold``."""

    def __init__(self, threshold: float, patience: int) -> None:
        self.threshold, self.patience = threshold, patience
        self._rows: dict[str, int] = {}

    def take(self, ratios: dict[str, float]) -> list[str]:
        """Take in a measurement; the names that have been above for long enough.

        A ratio of NaN, where no update was intended, counts neither way.
        """
        for name, ratio in ratios.items():
            if ratio == ratio:
                self._rows[name] = self._rows.get(name, 0) + 1 if ratio > self.threshold else 0
        return [name for name in ratios if self._rows.get(name, 0) >= self.patience]

    def message(self, ratio: float, step: int) -> str:
        """What is to be said of a name that :meth:`take` gave."""
        return (
            f"{ratio:.1%} of the intended updates stalled at step {step}, the last of "
            f"{self.patience} measurements in a row above {self.threshold:.1%}"
        )

    def restart(self, names: Sequence[str]) -> None:
        """Count from 0 again."""
        for name in names:
            self._rows.pop(name, None)

    def state(self) -> dict[str, int]:
        """For a checkpoint."""
        return dict(self._rows)

    def load(self, state: dict[str, int]) -> None:
        """Take up :meth:`state`."""
        self._rows = dict(state)


def moved_and_same(step: StepView, name: str) -> tuple[Tensor, Tensor]:
    """Where an update was intended, and where the rung stayed: bool, shape of the weight.

    Where the scale has changed, none counts as intended.
    """
    moved = step.weight_intended(name) != step.weight_before(name)
    return moved & ~step.rescaled(name), step.rung_after(name) == step.rung_before(name)


def _counts(step: StepView, name: str) -> Tensor:
    """Predicted, rescued, unpredicted, zero, intended, stalled: float64, shape ``(6,)``."""
    moved, same = moved_and_same(step, name)
    intended, before = step.weight_intended(name), step.weight_before(name)
    predicted = moved & (_to_nearest(step, name) == step.rung_before(name))
    masks = (
        predicted,
        predicted & ~same,
        moved & same & ~predicted,
        intended == before,
        moved,
        moved & same,
    )
    counts = torch.stack([torch.count_nonzero(mask) for mask in masks])
    return counts + offladder(step, name)


def _to_nearest(step: StepView, name: str) -> Tensor:
    """Rungs to which a weight on the grid would go; float64, where ``b + (u − w)`` is exact enough."""
    geometry: WeightGeometry = step.weights[name]
    intended = step.weight_intended(name)
    if geometry.resident:
        return geometry.rung(intended)
    update = intended.double() - step.weight_before(name).double()
    return geometry.rung(geometry.value(step.rung_before(name)).double() + update)

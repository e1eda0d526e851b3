"""Dead neurons: units whose activation says nothing, and weight rows without a gradient.

In the forward pass of the step, over every example and position of its batch (padding included):

===================  ===========================================================================
``dead_units``       units of a ReLU that are 0 throughout; units of a GELU or SiLU whose
                     magnitude stays within ``epsilon`` times the rms of the layer's output
``dead_units_rate``  dead_units / units
===================  ===========================================================================

The layer is the name of the activation module. Modules are found by their type: ``nn.ReLU``,
``nn.GELU``, ``nn.SiLU`` and what transformers has of these. An activation that the model calls as a
function (``F.relu``) is no module and cannot be seen. A module that is called several times in a
step counts a unit as dead if it is so in all calls. Batches of few examples have dead units by
chance; these numbers are of one step, not of the data.

In the backward pass, for each watched weight that has a gradient:

==================  ============================================================================
``dead_rows``       rows (output units) whose gradient is 0 in every entry
``dead_rows_rate``  dead_rows / rows
==================  ============================================================================

``all`` adds up units and rows. An output that is not finite gives NaN. An event ``dead_layer``
names, once, each activation module of which all units, and each weight of which all rows are dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Event, Observation, RunView, StepView
from altgrad_plugins.monitors.gradients.settings import DeadNeuronsSettings
from altgrad_plugins.monitors.gradients.silence import SilenceProbe, threshold
from altgrad_plugins.monitors.layers import ALL, LayerMonitor

DEAD_LAYER = "dead_layer"
"""Kind of the event: nothing passes a layer, forward or backward."""

_Counts = Mapping[str, tuple[float, int]]


class DeadNeuronsMonitor(LayerMonitor):
    """``dead_neurons/<layer>/{dead_units, dead_units_rate, dead_rows, dead_rows_rate}``."""

    waits = True  # the counts of neurons

    def __init__(self, settings: DeadNeuronsSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self.epsilon = settings.epsilon
        self._probe: SilenceProbe | None = None
        self._told: list[str] = []

    def start(self, run: RunView) -> Observation | None:
        """Put hooks on the activation modules whose names match, if there are quantised weights."""
        super().start(run)
        if self.layers:
            found = {name: threshold(m, self.epsilon) for name, m in run.model.named_modules()}
            watched = {
                name: limit
                for name, limit in found.items()
                if limit is not None and any(fnmatchcase(name, p) for p in self.patterns)
            }
            self._probe = SilenceProbe(run.model, watched, lambda: self.due(run.step))
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Count, and read the counts at once, for the event."""
        units = self._probe.take() if self._probe is not None else {}
        rows = {}
        for name in self.layers:
            gradient = step.weights[name].parameter.grad
            if gradient is not None and gradient.ndim > 1:
                rows[name] = (_zero_rows(gradient), len(gradient))
        counts = [count for count, _ in (*units.values(), *rows.values())]
        if not counts:
            return None
        read = iter(torch.stack(counts).tolist())
        of_units = {name: (next(read), size) for name, (_, size) in units.items()}
        of_rows = {name: (next(read), size) for name, (_, size) in rows.items()}
        metrics = _metrics("dead_units", of_units) | _metrics("dead_rows", of_rows)
        events = self._events(of_units, "units say nothing on this batch")
        events += self._events(of_rows, "rows of the weight have no gradient")
        return Observation(metrics, events)

    def end(self, run: RunView) -> Observation | None:
        """Take the hooks off."""
        if self._probe is not None:
            self._probe.close()
        return None

    def state_dict(self) -> dict[str, Any]:
        """The layers that were told of."""
        return {"told": list(self._told)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._told = list(state["told"])

    def _events(self, counts: _Counts, what: str) -> list[Event]:
        dead = [n for n, (count, size) in counts.items() if count == size and n not in self._told]
        self._told.extend(dead)
        return [Event(DEAD_LAYER, n, f"all {counts[n][1]} {what}", alert=True) for n in dead]


def _zero_rows(gradient: Tensor) -> Tensor:
    """How many rows have no entry but zero (float64, 0-d). NaN is not zero."""
    return (gradient.detach().flatten(1) == 0).all(1).sum().to(torch.float64)


def _metrics(metric: str, counts: _Counts) -> dict[str, float | Tensor]:
    """The count and the rate of each layer and of all."""
    if not counts:
        return {}
    found, sizes = zip(*counts.values(), strict=True)
    metrics: dict[str, float | Tensor] = {}
    for name, (count, size) in {**counts, ALL: (sum(found), sum(sizes))}.items():
        metrics[f"dead_neurons/{name}/{metric}"] = count
        metrics[f"dead_neurons/{name}/{metric}_rate"] = count / size
    return metrics

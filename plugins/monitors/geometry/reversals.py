"""Reversals: whether weights go somewhere on their grids or to and fro.

A weight flips when its rung changes, up or down, in an observed step; ``k`` and ``k'`` are its rungs
before and after, as in ``flips``, and ``v`` is the grid value of a rung. Over the ``n`` elements of a
layer:

======================  =========================================================  =====
``reversals``           flips in the direction opposite to that of the weight's    count
                        previous observed flip
``reversal_ratio``      reversals / flips of weights that were seen to flip        –
                        before; NaN when 0 / 0
``sign_flips``          #{v(k) v(k') < 0}: the weight crossed zero                 count
``sign_flip_ratio``     sign_flips / n                                             –
``ever_flipped``        share of the weights that were seen to flip so far         –
======================  =========================================================  =====

A weight that only moves on has no reversals; one that is kicked about at random reverses half of the
time, and one that swings between two neighbours always. Flips between two observed steps are not seen,
so this is about pairs of observed flips: with a longer ``interval`` they lie further apart.

The direction of the last flip is kept for each weight: 1 byte of memory, on its device, and in
checkpoints. Where the scale of a resident weight changed there is no flip. A NaN or inf, which is on no
rung, makes a layer NaN. ``all`` adds up the watched layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Observation, RunView, StepView
from altgrad_plugins.monitors.formats import PerFormat
from altgrad_plugins.monitors.geometry.ladders import offladder, sign_bounds
from altgrad_plugins.monitors.geometry.settings import ReversalsSettings
from altgrad_plugins.monitors.geometry.statistics import columns, layer_sizes
from altgrad_plugins.monitors.layers import ALL, LayerMonitor

_METRICS = ("reversals", "reversal_ratio", "sign_flips", "sign_flip_ratio", "ever_flipped")


class ReversalsMonitor(LayerMonitor):
    """``reversals/<layer>/<metric>``, from the flips of observed steps."""

    def __init__(self, settings: ReversalsSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._directions: dict[str, Tensor] = {}
        self._bounds = PerFormat(sign_bounds)
        self._sizes = torch.empty(0)
        self._device = torch.device("cpu")

    def start(self, run: RunView) -> Observation | None:
        """Choose the layers and note their sizes, that of all of them last."""
        super().start(run)
        sizes = layer_sizes(run.weights, self.layers).flatten()
        self._sizes = torch.cat((sizes, sizes.sum()[None]))
        self._device = run.device
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Keep the old weights and rungs."""
        for name in self.layers:
            step.weight_before(name)
            step.rung_before(name)
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Compare with the new ones."""
        if not self.layers:
            return None
        counts = torch.stack([self._counts(step, name) for name in self.layers])
        counts = torch.cat((counts, counts.sum(0, keepdim=True)))
        reversals, again, signs, ever = counts.unbind(1)
        sizes = self._sizes
        rows = (reversals, reversals / again, signs, signs / sizes, ever / sizes)
        layers = [*self.layers, ALL]
        return Observation(columns("reversals", _METRICS, layers, torch.stack(rows, dim=1)))

    def state_dict(self) -> dict[str, Any]:
        """The direction of each weight's last flip: -1, 1, or 0 before the first; int8."""
        return {"directions": dict(self._directions)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        directions = state["directions"]
        self._directions = {name: last.to(self._device) for name, last in directions.items()}

    def _counts(self, step: StepView, name: str) -> Tensor:
        """Reversals, flips after a flip, sign flips, weights that ever flipped: float64, ``(4,)``."""
        before, after = step.rung_before(name), step.rung_after(name)
        direction = _sign(after, before)
        last = self._directions.get(name)
        last = torch.zeros_like(direction) if last is None else last
        turn = direction * last
        last = direction + last * (direction == 0)
        self._directions[name] = last
        bounds = self._bounds(name, step.weights[name].format)
        crossed = _side(before, bounds) * _side(after, bounds) < 0
        counted = (turn < 0, turn, crossed, last)
        counts = torch.stack([torch.count_nonzero(each) for each in counted])
        return counts + offladder(step, name)


def _sign(x: Tensor, y: Tensor) -> Tensor:
    """The sign of ``x − y`` as int8; the difference itself may be too large for the integers."""
    return (x > y).view(torch.int8) - (x < y).view(torch.int8)


def _side(rung: Tensor, bounds: tuple[int, int]) -> Tensor:
    """The sign (int8) of the grid value on each rung."""
    negative, positive = bounds
    return (rung >= positive).view(torch.int8) - (rung <= negative).view(torch.int8)

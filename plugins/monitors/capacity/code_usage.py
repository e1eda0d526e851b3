"""Code usage: how many of a format's values the weights are spread over.

Let ``c(k)`` of the ``n`` weights of a layer lie on rung ``k`` of the ``R`` rungs of its format, in the forward
pass of this step, and ``p(k) = c(k) / n``. (Codes for NaN and inf are on no rung; +0 and −0 share one.)

=================  ======================================================  ====
``used``           #{k: c(k) > 0} / R                                      –
``entropy``        H = −Σ p(k) log2 p(k)                                   bits
``entropy_ratio``  H / log2 min(R, n): the share of what ``n`` weights     –
                   could have on ``R`` rungs
=================  ======================================================  ====

``all`` is the mean over the watched layers. Formats of more than 16 bits are left out. A weight with NaN
or inf makes a layer NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Event, Observation, StepView
from altgrad_plugins.monitors.capacity.settings import CodeUsageSettings
from altgrad_plugins.monitors.formats import PerFormat
from altgrad_plugins.monitors.geometry.ladders import grid_key
from altgrad_plugins.monitors.geometry.statistics import spoilt
from altgrad_plugins.monitors.layers import ALL, LayerMonitor

CODE_COLLAPSE = "code_collapse"
"""Event: the weights of a layer have come to lie on few grid values."""

_METRICS = ("used", "entropy", "entropy_ratio")
_WIDEST = 16


class CodeUsageMonitor(LayerMonitor):
    """``code_usage/<layer>/{used, entropy, entropy_ratio}``; event ``code_collapse``, once per layer.

    A layer collapses when its entropy falls below ``collapse`` times its first finite value; a
    weight that is moved to another format has a new first value there.
    """

    waits = True  # the entropies are sums on the host

    def __init__(self, settings: CodeUsageSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self.collapse = settings.collapse
        self._ends = PerFormat(_outermost)
        self._first: dict[str, dict[str, Any]] = {}
        self._collapsed: list[str] = []

    def before_update(self, step: StepView) -> Observation | None:
        """Count, and read the results, since an event depends on them: one transfer."""
        layers = [n for n in self.layers if step.weights[n].format.bits <= _WIDEST]
        if not layers:
            return None
        rows = torch.stack([self._row(step, name) for name in layers])
        *each, mean = torch.cat((rows, rows.mean(0, keepdim=True))).tolist()
        found = dict(zip(layers, each, strict=True))
        metrics: dict[str, float | Tensor] = {
            f"code_usage/{name}/{metric}": value
            for name, row in (*found.items(), (ALL, mean))
            for metric, value in zip(_METRICS, row, strict=True)
        }
        grids = {name: grid_key(step.weights[name].format) for name in layers}
        return Observation(metrics, self._collapses(found, grids))

    def state_dict(self) -> dict[str, Any]:
        """The first entropies with their grids, and the layers that have collapsed."""
        first = {name: dict(entry) for name, entry in self._first.items()}
        return {"first": first, "collapsed": list(self._collapsed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._first = {name: dict(entry) for name, entry in state["first"].items()}
        self._collapsed = list(state["collapsed"])

    def _row(self, step: StepView, name: str) -> Tensor:
        fmt, rungs = step.weights[name].format, step.rung_before(name)
        lowest, highest = self._ends(name, fmt)
        size, values = rungs.numel(), highest - lowest + 1
        used, entropy = usage(rungs, lowest, values)
        most = math.log2(min(values, size)) if min(values, size) > 1 else math.nan
        row = torch.stack((used / values, entropy, entropy / most))
        return row + spoilt(step.weights[name].parameter.detach())

    def _collapses(
        self, found: Mapping[str, Sequence[float]], grids: Mapping[str, str]
    ) -> list[Event]:
        events = []
        for name, (_, now, _) in found.items():
            if now != now:  # a weight with NaN has no entropy, and no first value
                continue
            if self._first.get(name, {}).get("grid") != grids[name]:
                self._first[name] = {"grid": grids[name], "entropy": now}
            first = self._first[name]["entropy"]
            if now < self.collapse * first and name not in self._collapsed:
                self._collapsed.append(name)
                message = (
                    f"below {self.collapse:g} of the first value: entropy {now:.3g} bits, "
                    f"at first {first:.3g}"
                )
                events.append(Event(CODE_COLLAPSE, name, message, alert=True))
        return events


def _outermost(fmt: Format) -> tuple[int, int]:
    """The outermost rungs of a format, asked for on the CPU."""
    lowest, highest = fmt.to_rung(torch.tensor([-torch.inf, torch.inf])).tolist()
    return lowest, highest


def usage(rungs: Tensor, lowest: int, values: int) -> tuple[Tensor, Tensor]:
    """How many rungs occur, and the entropy in bits of their shares (0-d, float64).

    ``values`` rungs are counted from ``lowest``. The entropy is the mean of −log2 p over the weights,
    so that a wide format takes no longer. ``bincount`` would wait for the device.
    """
    index = (rungs.flatten() - lowest).to(torch.int64)
    counts = torch.zeros(values, dtype=torch.int64, device=rungs.device)
    counts.scatter_add_(0, index, torch.ones_like(index))
    shared = counts[index].to(torch.float64).log2_().mean()
    entropy = (math.log2(len(index)) - shared).clamp_(min=0)  # where all are one: not below
    return torch.count_nonzero(counts).to(torch.float64), entropy

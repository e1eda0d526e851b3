"""The rank of each weight matrix, and a warning when one collapses.

===================  ==============================================================================
``stable_rank``      ‖W‖_F² / ‖W‖₂²
``effective_rank``   exp of the entropy of the singular values; not with ``estimator: power``
``spectral_norm``    ‖W‖₂, in units of the weight
``…_rank_ratio``     the effective rank (with ``estimator: power`` the stable one) divided by that
                     of the twin; with ``relative_to: twin`` only
===================  ==============================================================================

Formulas, sources and precision stand in ``spectra`` and ``power``, which measure. Ranks and ratios
of ``all`` are means over the watched layers, with the least of them as ``…_min``; the spectral norm
of ``all`` is the largest. What is NaN in one layer is NaN there.

Measured before the update, on the weight that this step's forward pass used (``of: quantized``,
family ``rank``) or on its float32 master (``of: master``, family ``master_rank``). The *twin* of a
quantised matrix is that master at the same step: what training has done to the rank shows in both,
what rounding has done to it only in the ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from altgrad_core.errors import UserError
from altgrad_core.interfaces.monitor import Event, Observation, RunView, StepView
from altgrad_plugins.monitors.layers import ALL, LayerMonitor, per_layer
from altgrad_plugins.monitors.rank.power import PowerIteration
from altgrad_plugins.monitors.rank.settings import RankSettings
from altgrad_plugins.monitors.rank.spectra import METRICS, from_grams, from_matrices

RANK_COLLAPSE = "rank_collapse"
"""Kind of the event: a matrix has lost the rank that it had at first, or that its twin has."""


class RankMonitor(LayerMonitor):
    """``rank/<layer>/{stable_rank, effective_rank, spectral_norm}``; event once per layer.

    A layer collapses when its effective rank falls below ``collapse`` (``critical_collapse`` for
    weights that match ``critical``) times its first finite value, or times that of its twin. The
    stable rank would give no warning since the start: it falls to a fraction in every healthy
    training from scratch, as soon as one direction grows above the random ones, in float32 as in 8
    bits. Against the twin it does.
    """

    waits = True  # singular values are judged on the host

    def __init__(self, settings: RankSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self.settings = settings
        self.quantized = settings.of == "quantized"
        self.family = "rank" if self.quantized else "master_rank"
        self.twin = settings.relative_to == "twin"
        power = settings.estimator == "power"
        self.columns = ("stable_rank", "spectral_norm") if power else METRICS
        self.judged = "stable_rank" if power else "effective_rank"
        self.limits: dict[str, float] = {}
        self._power = {which: PowerIteration(settings.iterations) for which in ("own", "twin")}
        self._first: dict[str, float] = {}
        self._collapsed: list[str] = []

    def start(self, run: RunView) -> Observation | None:
        """Choose the matrices among the watched weights.

        Raises ``UserError`` where a twin is asked for and a weight has none, and where no weight is
        critical though ``critical`` is set.
        """
        super().start(run)
        self.layers = tuple(n for n in self.layers if run.weights[n].parameter.ndim >= 2)
        resident = [name for name in self.layers if run.weights[name].resident]
        if self.twin and resident:
            raise UserError(
                f"relative_to: twin compares each quantised weight with its float32 master, but "
                f"{resident[0]!r} lives on its grid and has none (residency: grid). Set "
                f"relative_to: start, or name weights with a master in layers."
            )
        critical = {n for n in self.layers if _matches(n, self.settings.critical)}
        if self.layers and self.settings.critical and not critical:
            raise UserError(
                f"no watched matrix matches critical = {list(self.settings.critical)}. They are "
                f"named like {self.layers[0]!r}."
            )
        chosen = self.settings
        self.limits = {
            name: chosen.critical_collapse if name in critical else chosen.collapse
            for name in self.layers
        }
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Measure, and read what collapses are judged by, if they are."""
        if not self.layers:
            return None
        used = [self._matrix(step, name) for name in self.layers]
        table, columns = self._spectra("own", used, step.step), list(self.columns)
        now = reference = table[:, columns.index(self.judged)]
        if self.twin:
            masters = [step.weights[name].parameter.detach() for name in self.layers]
            reference = self._spectra("twin", masters, step.step)[:, columns.index(self.judged)]
            table = torch.cat((table, (now / reference)[:, None]), 1)
            columns.append(f"{self.judged}_ratio")
        metrics = self._metrics(table, columns)
        if not any(self.limits.values()):
            return Observation(metrics)
        rows = torch.stack((now, reference), 1).tolist()
        return Observation(metrics, self._collapses(rows))

    def state_dict(self) -> dict[str, Any]:
        """First values, the layers that have collapsed, and the vectors of the power iteration."""
        vectors = {which: dict(power.vectors) for which, power in self._power.items()}
        return {
            "first": dict(self._first),
            "collapsed": list(self._collapsed),
            "vectors": vectors,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._first, self._collapsed = dict(state["first"]), list(state["collapsed"])
        for which, power in self._power.items():
            power.vectors = dict(state["vectors"][which])

    def _matrix(self, step: StepView, name: str) -> Tensor:
        weight = step.weights[name].parameter.detach()
        if not self.quantized:
            return weight
        # A NaN is on no rung: it has to stand in the matrix itself.
        rounded = step.weights[name].value(step.rung_before(name))
        return torch.where(weight.isfinite(), rounded, weight)

    def _spectra(self, which: str, matrices: Sequence[Tensor], step: int) -> Tensor:
        if self.settings.estimator == "gram":
            return from_grams(matrices)
        if self.settings.estimator == "exact":
            return from_matrices(matrices)
        return self._power[which].measure(dict(zip(self.layers, matrices, strict=True)), step)

    def _metrics(self, table: Tensor, columns: Sequence[str]) -> dict[str, float | Tensor]:
        metrics: dict[str, float | Tensor] = {}
        for metric, values in zip(columns, table.unbind(1), strict=True):
            metrics |= per_layer(self.family, metric, self.layers, values)
            if metric == "spectral_norm":
                metrics[f"{self.family}/{ALL}/{metric}"] = values.amax()
            else:
                metrics[f"{self.family}/{ALL}/{metric}"] = values.mean()
                metrics[f"{self.family}/{ALL}/{metric}_min"] = values.amin()
        return metrics

    def _collapses(self, rows: Sequence[Sequence[float]]) -> list[Event]:
        """Events for the layers that fall below their limit; ``rows``: their rank, and the twin's."""
        events = []
        whose, what = ("twin", "the float32 twin") if self.twin else ("at first", "the first value")
        for (name, limit), (now, twin) in zip(self.limits.items(), rows, strict=True):
            if now != now:  # a matrix with NaN has no rank, and no first value
                continue
            before = twin if self.twin else self._first.setdefault(name, now)
            if now < limit * before and name not in self._collapsed:
                self._collapsed.append(name)
                message = (
                    f"below {limit:g} of {what}: {self.judged.replace('_', ' ')} {now:.3g}, "
                    f"{whose} {before:.3g}"
                )
                events.append(Event(RANK_COLLAPSE, name, message, alert=True))
        return events


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

"""Stable and effective rank of each weight matrix, and a warning when one collapses.

With singular values ``σ₁ ≥ σ₂ ≥ …`` of the matrix ``W`` (a weight with more dimensions is flattened
to ``out × rest``), both without unit, between 1 and min(out, rest), and 0 for a matrix of zeros:

==================  ===============================================================================
``stable_rank``     ‖W‖_F² / ‖W‖₂² = Σ σᵢ² / σ₁²
``effective_rank``  exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ / Σ σⱼ (Roy & Vetterli, EUSIPCO 2007)
==================  ===============================================================================

``all`` is the mean over the watched layers, and ``stable_rank_min``, ``effective_rank_min`` the
least. A matrix with NaN or inf has rank NaN, and so have the mean and the least then.

Measured before the update, on the weight that this step's forward pass used (``of: quantized``,
family ``rank``) or on its float32 master (``of: master``, family ``master_rank``).

The singular values come from the Gram matrix of the shorter side: σᵢ = sqrt(λᵢ(W Wᵀ)), in float64,
where squaring costs nothing that float32 weights have: eigenvalues below ``n ε λ₁`` are rounding
noise and count as zero, which is σ below 4e-7 σ₁ at n = 768.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Event, Observation, RunView, StepView
from altgrad_plugins.monitors.layers import ALL, LayerMonitor
from altgrad_plugins.monitors.rank.settings import RankSettings

_METRICS = ("stable_rank", "effective_rank")


class RankMonitor(LayerMonitor):
    """``rank/<layer>/{stable_rank, effective_rank}``; event ``rank_collapse``, once per layer.

    A layer collapses when its effective rank falls below ``collapse`` times its first finite value. The
    stable rank gives no warning: it falls to a fraction in every healthy training from scratch, as soon
    as one direction grows above the random ones, in float32 as in 8 bits.
    """

    def __init__(self, settings: RankSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self.collapse = settings.collapse
        self.quantized = settings.of == "quantized"
        self.family = "rank" if self.quantized else "master_rank"
        self._first: dict[str, float] = {}
        self._collapsed: list[str] = []

    def start(self, run: RunView) -> Observation | None:
        """Choose the matrices among the watched weights."""
        super().start(run)
        self.layers = tuple(n for n in self.layers if run.weights[n].parameter.ndim >= 2)
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Measure. The eigenvalue solver waits for the device, so the values are read at once."""
        if not self.layers:
            return None
        grams = [gram(self._matrix(step, name)) for name in self.layers]
        ranks = stable_and_effective_rank(grams)
        *layers, mean, least = torch.cat((ranks, ranks.mean(0)[None], ranks.amin(0)[None])).tolist()
        found = dict(zip(self.layers, layers, strict=True))
        metrics: dict[str, float | Tensor] = {}
        for index, metric in enumerate(_METRICS):
            for name, pair in found.items():
                metrics[f"{self.family}/{name}/{metric}"] = pair[index]
            metrics[f"{self.family}/{ALL}/{metric}"] = mean[index]
            metrics[f"{self.family}/{ALL}/{metric}_min"] = least[index]
        return Observation(metrics, self._collapses(found))

    def state_dict(self) -> dict[str, Any]:
        """The first values, against which a collapse is judged, and the layers that had one."""
        return {"first": dict(self._first), "collapsed": list(self._collapsed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._first, self._collapsed = dict(state["first"]), list(state["collapsed"])

    def _matrix(self, step: StepView, name: str) -> Tensor:
        if self.quantized:
            return step.weights[name].value(step.rung_before(name))
        return step.weights[name].parameter.detach()

    def _collapses(self, found: Mapping[str, Sequence[float]]) -> list[Event]:
        events = []
        for name, (_, now) in found.items():
            if now != now:  # a matrix with NaN has no rank, and no first value
                continue
            first = self._first.setdefault(name, now)
            if now < self.collapse * first and name not in self._collapsed:
                self._collapsed.append(name)
                message = (
                    f"below {self.collapse:g} of the first value: effective rank {now:.3g}, "
                    f"at first {first:.3g}"
                )
                events.append(Event("rank_collapse", name, message, alert=True))
        return events


def gram(weight: Tensor) -> Tensor:
    """The smaller of ``W Wᵀ`` and ``Wᵀ W`` of the weight as a matrix: float64, ``(n, n)``."""
    matrix = weight.flatten(1).to(torch.float64)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    return matrix @ matrix.T


def stable_and_effective_rank(grams: Sequence[Tensor]) -> Tensor:
    """Both ranks for each Gram matrix: float64, shape ``(len(grams), 2)``.

    Matrices of one size go through the eigenvalue solver together.
    """
    by_size: dict[int, list[int]] = {}
    for index, matrix in enumerate(grams):
        by_size.setdefault(matrix.shape[0], []).append(index)
    ranks: dict[int, Tensor] = {}
    for indices in by_size.values():
        batch = torch.stack([grams[index] for index in indices])
        ranks.update(zip(indices, _ranks(batch).unbind(), strict=True))
    return torch.stack([ranks[index] for index in range(len(grams))])


def _ranks(grams: Tensor) -> Tensor:
    """Both ranks for each of the Gram matrices ``(B, n, n)``: shape ``(B, 2)``."""
    size = grams.shape[-1]
    finite = torch.isfinite(grams).all(-1).all(-1)
    identity = torch.eye(size, dtype=grams.dtype, device=grams.device)
    squares = torch.linalg.eigvalsh(torch.where(finite[:, None, None], grams, identity))
    largest = squares[:, -1:]
    noise = size * torch.finfo(squares.dtype).eps * largest
    squares = torch.where(squares > noise, squares, 0.0)
    stable = squares.sum(-1) / largest[:, 0]
    values = squares.sqrt()
    shares = values / values.sum(-1, keepdim=True)
    ranks = torch.stack((stable, torch.special.entr(shares).sum(-1).exp()), -1)
    ranks = torch.where(largest > 0, ranks, 0.0)
    return torch.where(finite[:, None], ranks, torch.nan)

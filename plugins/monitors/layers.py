"""What the monitors of weights share: which layers they watch, when, and how metrics are named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from altgrad_core.errors import UserError
from altgrad_core.interfaces.monitor import Monitor, Observation, RunView

ALL = "all"


class LayerMonitor(Monitor):
    """Base of monitors that watch the quantised weights whose names match ``patterns``.

    It is due at the first step, at every ``interval``-th, and at the last one, so that even a run
    shorter than the interval has a first and a last value.
    """

    def __init__(self, interval: int, patterns: Sequence[str]) -> None:
        self.interval = interval
        self.patterns = tuple(patterns)
        self.layers: tuple[str, ...] = ()
        self._last = 0

    def due(self, step: int) -> bool:
        """Whether ``step`` (from 1) is the first, a multiple of the interval, or the last."""
        return super().due(step) or step == self._last

    def start(self, run: RunView) -> Observation | None:
        """Choose the layers. Raises ``UserError`` when no pattern matches any weight."""
        self._last = run.max_steps
        self.layers = matching(run.weights, self.patterns)
        return None


def matching(names: Iterable[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The names that match a pattern, in order. Raises ``UserError`` when none of them does."""
    names = list(names)
    found = tuple(n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns))
    if names and not found:
        raise UserError(
            f"no quantised weight matches layers = {list(patterns)}. The weights of this model are "
            f"named like {names[0]!r}; there are {len(names)} of them."
        )
    return found


def per_layer(
    family: str, metric: str, layers: Iterable[str], values: Tensor
) -> dict[str, float | Tensor]:
    """``values``, one for each layer, under their names ``family/layer/metric``."""
    return {
        f"{family}/{layer}/{metric}": value
        for layer, value in zip(layers, values.unbind(), strict=True)
    }


def with_total(counts: Tensor) -> Tensor:
    """Counts of the layers, shape ``(L,)``, and behind them their sum: float64, ``(L + 1,)``."""
    counts = counts.to(torch.float64)
    return torch.cat((counts, counts.sum().unsqueeze(0)))


def counts_and_rates(
    family: str, metric: str, rate: str, counts: Mapping[str, Tensor], sizes: Mapping[str, int]
) -> dict[str, float | Tensor]:
    """The count of each layer and of all, as ``metric``, and each divided by its size, as ``rate``.

    The sizes are host numbers: dividing by them one by one (in one fused call) spares the copy to
    the device, and with it the wait for the device.
    """
    if not counts:
        return {}
    totals = with_total(torch.stack(list(counts.values())))
    names = [*counts, ALL]
    numels = [float(sizes[layer]) for layer in counts]
    rates = torch._foreach_div(list(totals.unbind()), [*numels, sum(numels)])
    return per_layer(family, metric, names, totals) | {
        f"{family}/{layer}/{rate}": value for layer, value in zip(names, rates, strict=True)
    }

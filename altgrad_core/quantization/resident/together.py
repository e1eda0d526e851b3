"""Resident weights that a GPU settles together, in a few launches for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.draws import new_key
from altgrad_core.quantization.resident.table import Row, flag
from altgrad_core.quantization.resident.weight import Resident


@dataclass
class _Table:
    rows: list[Row] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    weights: list[tuple[nn.Module, Resident]] = field(default_factory=list)


class Tables:
    """The weights of one settling that kernels can do. Each draws its key when it is taken, in model order.

    generator:
        what stochastic rounding draws from.
    skipped:
        0-d; where it is not 0 the optimizer has skipped the step, and nothing is changed.
    """

    def __init__(self, generator: torch.Generator | None, skipped: Tensor | None) -> None:
        self._generator = generator
        self._skipped = skipped
        self._tables: dict[tuple[torch.device, bool, bool], _Table] = {}

    def take(self, module: nn.Module, resident: Resident) -> bool:
        """Put the weight into its table; False for one that has to settle alone."""
        row = resident.row(module)
        stochastic = resident.rounding == "stochastic"
        if row is None or (stochastic and self._generator is None):
            return False
        device = module.get_parameter(resident.parameter).device
        if not flag(self._skipped, device):
            return False
        kahan = resident.compensation is not None
        table = self._tables.setdefault((device, stochastic, kahan), _Table())
        if stochastic and self._generator is not None:
            table.keys.append(new_key(self._generator))
        table.rows.append(row)
        table.weights.append((module, resident))
        return True

    @torch.no_grad()
    def settle(self) -> None:
        """Settle all that was taken. Waits for nothing."""
        for (device, _, kahan), table in self._tables.items():
            from altgrad_core.quantization.kernels import gpu_settling

            for module, resident in table.weights:
                resident.moved(module)
            gpu_settling.settle(table.rows, table.keys, self._skipped, device, kahan=kahan)
            for module, resident in table.weights:
                resident.settled(module)

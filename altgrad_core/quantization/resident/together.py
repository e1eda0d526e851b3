"""Resident weights that kernels settle together: in one launch for all of them, on a GPU in three.

So are their scales found together, where somebody wants them of many at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.draws import new_key
from altgrad_core.quantization.resident.table import Row, flag, is_prefix
from altgrad_core.quantization.resident.weight import Resident


class _Kind(NamedTuple):
    """What the weights of one table have in common."""

    device: torch.device
    compiled: bool
    """By numba, or else by Triton."""
    stochastic: bool
    kahan: bool
    prefix: bool


@dataclass
class _Table:
    rows: list[Row] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    weights: list[tuple[nn.Module, Resident, list[Tensor]]] = field(default_factory=list)


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
        self._tables: dict[_Kind, _Table] = {}

    def take(self, module: nn.Module, resident: Resident) -> bool:
        """Put the weight into its table; False for one that has to settle alone."""
        found = resident.row(module)
        stochastic = resident.rounding == "stochastic"
        if found is None or (stochastic and self._generator is None):
            return False
        row, written = found
        weight = written[0]
        if not flag(self._skipped, weight):
            return False
        compiled, kahan = backend_for(weight) == "numba", resident.compensation is not None
        kind = _Kind(weight.device, compiled, stochastic, kahan, is_prefix(row))
        table = self._tables.setdefault(kind, _Table())
        if stochastic and self._generator is not None:
            table.keys.append(new_key(self._generator))
        table.rows.append(row)
        table.weights.append((module, resident, written))
        return True

    @torch.no_grad()
    def settle(self) -> None:
        """Settle all that was taken. Waits for nothing."""
        for kind, table in self._tables.items():
            for module, resident, _ in table.weights:
                resident.moved(module)
            self._launch(kind, table)
            for module, resident, written in table.weights:
                resident.settled(module, written)

    def _launch(self, kind: _Kind, table: _Table) -> None:
        how = {"kahan": kind.kahan, "prefix": kind.prefix}
        if kind.compiled:
            from altgrad_core.quantization.kernels import compiled_settling

            if self._skipped is None or not self._skipped:  # on the CPU, a look is free
                compiled_settling.settle(table.rows, table.keys, **how)
        else:
            from altgrad_core.quantization.kernels import gpu_settling

            gpu_settling.settle(table.rows, table.keys, self._skipped, kind.device, **how)


@torch.no_grad()
def scales(weights: Sequence[tuple[nn.Module, Resident]]) -> list[Tensor]:
    """The compact scale in force of each, as :meth:`Resident.scale` finds it. Waits for nothing."""
    found: dict[int, Tensor] = {}
    tables: defaultdict[tuple[torch.device, bool], dict[int, Row]] = defaultdict(dict)
    for index, (module, resident) in enumerate(weights):
        its = resident.row(module) if resident.format.scaled else None
        if its is None:
            found[index] = resident.scale(module)
        else:
            row, (weight, *_) = its
            tables[weight.device, backend_for(weight) == "numba"][index] = row
    for (device, compiled), rows in tables.items():
        made = _scales(list(rows.values()), device, compiled=compiled)
        found |= zip(rows, made.unbind(), strict=True)
    return [found[index] for index in range(len(weights))]


def _scales(rows: Sequence[Row], device: torch.device, *, compiled: bool) -> Tensor:
    if compiled:
        from altgrad_core.quantization.kernels import compiled_settling

        return compiled_settling.scales(rows)
    from altgrad_core.quantization.kernels import gpu_settling

    return gpu_settling.scales(rows, device)

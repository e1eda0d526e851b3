"""An input that several modules are called with is rounded once: that of q, k and v.

What was rounded last is kept for the other modules, until something else is rounded, the input is gone, or
``hold_weights`` ends. A module that meets the same tensor again is in another forward, and rounds anew: a
captured or traced forward must not find what was made before it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from torch import Tensor, nn

from altgrad_core.quantization.marks import Mark, mark_of
from altgrad_core.quantization.modules.fake_quant import Rounded


@dataclass(frozen=True)
class _Kept:
    input: weakref.ref[Tensor]
    marks: tuple[Mark, Mark]
    """Of the input and of the values: either may have been written to since."""
    grid: tuple[object, ...]
    rounded: Rounded
    users: set[int]


class SharedInput:
    """What was rounded last, of all modules of a model."""

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def __reduce__(self) -> tuple[type[SharedInput], tuple[()]]:
        return SharedInput, ()  # what a copy of the model is called with is yet to come

    def find(self, module: nn.Module, x: Tensor, grid: tuple[object, ...]) -> Rounded | None:
        """``x`` on ``grid``, if another module has just rounded it. ``grid``: all that rounding depends on."""
        kept = self._kept
        if kept is None or kept.input() is not x or kept.grid != grid or id(module) in kept.users:
            return None
        if kept.marks != (mark_of(x), mark_of(kept.rounded.values)):
            return None
        kept.users.add(id(module))
        return kept.rounded

    def keep(
        self, module: nn.Module, x: Tensor, grid: tuple[object, ...], rounded: Rounded
    ) -> None:
        """``module`` has rounded ``x``."""
        marks = mark_of(x), mark_of(rounded.values)
        self._kept = _Kept(weakref.ref(x, self._gone), marks, grid, rounded, {id(module)})

    def clear(self) -> None:
        """Keep nothing."""
        self._kept = None

    def _gone(self, input: weakref.ref[Tensor]) -> None:
        if self._kept is not None and self._kept.input is input:
            self._kept = None

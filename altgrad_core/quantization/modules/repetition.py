"""Forwards that are computed again for their backward pass: which earlier forward do they repeat?

Activation checkpointing throws the results of a forward away and computes them again when the
backward pass asks for them. Such a *recomputation* is no new step. It must go by the scales and
the random draws of the forward that it repeats, or it gives the gradient of another one.

A training forward that runs while the autograd engine works is a recomputation. Which forward it
repeats is found by autograd's sequence numbers, which grow from node to node:

- *Reentrant* checkpointing runs a forward without gradients inside one node, and repeats it when
  the engine executes that node. What it repeats was noted after the node was made.
- Otherwise, hooks on saved tensors repeat the forward when the engine executes a node *of* that
  forward. What it repeats was noted before that node, while the same hooks were in force.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_KEPT = 256
"""Forwards that are remembered, for as long as the weights stay the same."""


Hooks = weakref.ref[Callable[..., Any]]
"""Of one function there is but one such reference, so they are compared by identity."""


@dataclass(eq=False)
class Origin:
    """What a training forward went by, beside the tensor itself.

    past:
        the amax that a delayed scale was found from; None where no scale is delayed.
    draws:
        the state of the generator before stochastic rounding drew from it; None where it did not.
    """

    past: Tensor | None = None
    draws: Tensor | None = None


def transformed() -> bool:
    """Whether a transform of ``torch.func`` (``grad``, ``vmap``, …) is at work."""
    return bool(torch._C._are_functorch_transforms_active())


def traced() -> bool:
    """Whether tensors may stand for values that are not there to be looked at."""
    return torch.compiler.is_compiling() or transformed()


def recomputing() -> bool:
    """Whether a forward that runs now is computed again for a backward pass."""
    if torch.compiler.is_compiling():
        return False
    return int(torch._C._current_graph_task_id()) != -1


def repeatable() -> bool:
    """Whether a forward that runs now may be computed again for its backward pass."""
    if torch.compiler.is_compiling():
        return False
    return not torch.is_grad_enabled() or _hooks() is not None


@dataclass(frozen=True)
class _Pass:
    mark: int
    region: Hooks | None
    """The hooks on saved tensors that were in force; None for a forward without gradients."""
    origin: Origin


class PassLog:
    """The origins of those forwards of one tensor that may yet be repeated."""

    def __init__(self) -> None:
        self._passes: deque[_Pass] = deque(maxlen=_KEPT)
        self._version: object = None
        self._repeating: tuple[object, ...] | None = None
        self._calls = 0

    def __reduce__(self) -> tuple[type[PassLog], tuple[()]]:
        return PassLog, ()  # a copy has no part in graphs of the original

    def note(self, origin: Origin, version: object) -> None:
        """A forward begins that may be repeated. ``version`` tells the present weights from later ones."""
        if version != self._version:  # what was computed with other weights cannot be repeated
            self._passes.clear()
            self._version = version
        region = _hooks() if torch.is_grad_enabled() else None
        self._passes.append(_Pass(torch._C._autograd._get_sequence_nr(), region, origin))

    def repeated(self) -> Origin | None:
        """The origin of the forward that is being recomputed; None if nothing is known of it."""
        node = torch._C._current_autograd_node()
        number = int(node._sequence_nr())
        found = self._region(number)
        if not found:
            return None
        task = (torch._C._current_graph_task_id(), number, _hooks())
        if task != self._repeating:
            self._repeating, self._calls = task, 0
        origin = found[self._calls % len(found)].origin
        self._calls += 1
        return origin

    def _region(self, number: int) -> list[_Pass]:
        """The forwards in the checkpointed region of the node with that sequence number, in order."""
        inside = [p for p in self._passes if p.region is None and p.mark > number]
        alive = (p for p in self._passes if p.region is not None and p.region() is not None)
        before = [p for p in alive if p.mark <= number]
        if before and (not inside or _hooks() is not None):
            return [p for p in before if p.region is before[-1].region]
        return inside


def _hooks() -> Hooks | None:
    """What unpacks the tensors that are saved now, and lives as long as they do; None without hooks."""
    top = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if top is None else weakref.ref(top[1])

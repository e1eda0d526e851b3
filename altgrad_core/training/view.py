"""What monitors see of the run, and of one update.

Flips and stalls are counted in rungs under one scale: the scale in force at the forward pass of the
step. ``WeightGeometry.scale`` does not change until the next forward pass, so the rungs before and
after the update share it without further care.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Clock


@dataclass
class Run:
    """The run as monitors see it (``RunView``). The step loop sets ``step``, from 1."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    weights: Mapping[str, WeightGeometry]
    device: torch.device
    max_steps: int
    clock: Clock
    step: int = 0


class StepView:
    """The run around one update (``StepView`` of the contract).

    Weights and rungs are copied when first asked for and then shared by all monitors of the step,
    so a step in which nobody asks costs nothing. The object lives for one step.
    """

    def __init__(self, run: Run, loss: Tensor) -> None:
        self.model = run.model
        self.optimizer = run.optimizer
        self.weights = run.weights
        self.device = run.device
        self.step = run.step
        self.max_steps = run.max_steps
        self.clock = run.clock
        self.loss = loss
        self._updated = False
        self._weights: dict[str, Tensor] = {}
        self._rungs: dict[str, Tensor] = {}
        self._rungs_after: dict[str, Tensor] = {}

    def mark_updated(self) -> None:
        """Say that the optimizer has taken its step. ``MonitorPanel.after_update`` does."""
        self._updated = True

    def weight_before(self, name: str) -> Tensor:
        """A copy of the parameter as it was before the update (float32).

        Raises:
            RuntimeError: first asked for after the update, when the old weight is gone.
            KeyError: ``name`` is not a quantised weight.
        """
        if name not in self._weights:
            parameter = self._geometry(name).parameter
            self._refuse_after_update("weight_before", name)
            self._weights[name] = parameter.detach().clone()
        return self._weights[name]

    def rung_before(self, name: str) -> Tensor:
        """Rungs (int32) before the update, under the scale of this step.

        Raises as :meth:`weight_before` does.
        """
        if name not in self._rungs:
            geometry = self._geometry(name)
            self._refuse_after_update("rung_before", name)
            self._rungs[name] = geometry.rung(geometry.parameter.detach())
        return self._rungs[name]

    def rung_after(self, name: str) -> Tensor:
        """Rungs (int32) after the update, under the same scale as :meth:`rung_before`.

        Raises:
            RuntimeError: asked for before the update.
            KeyError: ``name`` is not a quantised weight.
        """
        geometry = self._geometry(name)
        if not self._updated:
            raise RuntimeError(
                f"rung_after({name!r}) was asked for before the update of step {self.step}; "
                f"ask for it in after_update."
            )
        if name not in self._rungs_after:
            self._rungs_after[name] = geometry.rung(geometry.parameter.detach())
        return self._rungs_after[name]

    def _geometry(self, name: str) -> WeightGeometry:
        try:
            return self.weights[name]
        except KeyError:
            known = ", ".join(self.weights) or "none"
            raise KeyError(f"{name!r} is not a quantised weight; there are: {known}.") from None

    def _refuse_after_update(self, method: str, name: str) -> None:
        if self._updated:
            raise RuntimeError(
                f"{method}({name!r}) was first asked for after the update of step {self.step}, "
                f"when the old weight is gone; ask for it in before_update as well."
            )

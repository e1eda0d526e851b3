"""What monitors see of the run, and of one update.

Flips and stalls are counted in rungs under one scale: the scale in force at the forward pass of the
step. That of a master does not change until the next forward pass, so the rungs before and after
the update share it. That of a resident weight may change with the update; where it does, the
update counts neither as a flip nor as a stall.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Clock
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.training.replay import Replayer


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
    replayer: Replayer | None = None
    residency: GridResidency | None = None

    def probe_batch(self, samples: int) -> Batch:
        """See ``RunView``."""
        return self._replayer.probe_batch(samples)

    def replay(
        self, batch: Batch | None = None, *, reference: bool = False
    ) -> AbstractContextManager[Tensor]:
        """See ``RunView``. Raises ``ValueError`` without a batch, outside of a step."""
        if batch is None:
            raise ValueError("there is no step whose batch could be repeated: give a batch")
        return self._replayer.replay(batch, reference=reference)

    @property
    def _replayer(self) -> Replayer:
        if self.replayer is None:
            raise RuntimeError(
                "this run has no task, so no pass can be repeated: give MonitorSession its task"
            )
        return self.replayer


class StepView:
    """The run around one update (``StepView`` of the contract).

    Weights and rungs are copied when first asked for and then shared by all monitors of the step,
    so a step in which nobody asks costs nothing. The object lives for one step.
    """

    def __init__(self, run: Run, loss: Tensor, batch: Batch | None = None) -> None:
        self.model = run.model
        self.optimizer = run.optimizer
        self.weights = run.weights
        self.device = run.device
        self.step = run.step
        self.max_steps = run.max_steps
        self.clock = run.clock
        self.loss = loss
        self._run = run
        self._batch = batch
        self._updated = False
        self._weights: dict[str, Tensor] = {}
        self._scales: dict[str, Tensor] = {}
        self._ulps: dict[str, Tensor] = {}
        self._rungs: dict[str, Tensor] = {}
        self._rungs_after: dict[str, Tensor] = {}
        self._reference: dict[str, Tensor] | None = None

    @property
    def batch(self) -> Batch:
        """See the contract. Raises ``RuntimeError`` if this view was made without one."""
        if self._batch is None:
            raise RuntimeError("this step has no batch")
        return self._batch

    def probe_batch(self, samples: int) -> Batch:
        """See the contract."""
        return self._run.probe_batch(samples)

    def replay(
        self, batch: Batch | None = None, *, reference: bool = False
    ) -> AbstractContextManager[Tensor]:
        """See the contract."""
        if batch is not None:
            return self._run.replay(batch, reference=reference)
        return self._run._replayer.replay(self.batch, step=self.step, reference=reference)

    def reference_gradients(self) -> Mapping[str, Tensor]:
        """See the contract. Raises ``RuntimeError`` when first asked for after the update."""
        if self._reference is None:
            self._refuse_after_update("reference_gradients", "")
            named = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
            with self.replay(reference=True) as loss:
                found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
            pairs = zip(named, found, strict=True)
            self._reference = {name: grad for name, grad in pairs if grad is not None}
        return self._reference

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
            if self._run.residency is not None:
                self._run.residency.watch([name])
        return self._weights[name]

    def weight_intended(self, name: str) -> Tensor:
        """The weight (float32) as the optimizer wanted it, before it was rounded back to a grid.

        Raises:
            RuntimeError: asked for before the update, or without :meth:`weight_before` before it.
            KeyError: ``name`` is not a quantised weight.
        """
        geometry = self._geometry(name)
        self._refuse_before_update("weight_intended", name)
        residency = self._run.residency
        if residency is None or not geometry.resident:
            return geometry.parameter.detach()
        if name not in self._weights:
            raise RuntimeError(
                f"weight_intended({name!r}) needs weight_before({name!r}) in before_update, so "
                f"that it is kept before it is rounded."
            )
        intended = residency.intended(name)
        # Where the update was skipped, nothing settled and nothing else was intended.
        return self._weights[name] if intended is None else intended

    def rung_before(self, name: str) -> Tensor:
        """Rungs (int32) before the update, under the scale of this step.

        Raises as :meth:`weight_before` does.
        """
        if name not in self._rungs:
            geometry = self._geometry(name)
            self._refuse_after_update("rung_before", name)
            self._rungs[name] = geometry.rung(geometry.parameter.detach())
            if geometry.resident:
                self._scales[name] = geometry.scale().clone()
        return self._rungs[name]

    def ulp_before(self, name: str) -> Tensor:
        """The gap ``S(w)`` at each weight before the update, under the scale of this step.

        Raises as :meth:`weight_before` does.
        """
        if name not in self._ulps:
            geometry = self._geometry(name)
            self._refuse_after_update("ulp_before", name)
            self._ulps[name] = geometry.ulp(geometry.parameter.detach())
        return self._ulps[name]

    def rung_after(self, name: str) -> Tensor:
        """Rungs (int32) after the update, under the same scale as :meth:`rung_before`.

        Raises:
            RuntimeError: asked for before the update.
            KeyError: ``name`` is not a quantised weight.
        """
        geometry = self._geometry(name)
        self._refuse_before_update("rung_after", name)
        if name not in self._rungs_after:
            after = geometry.rung(geometry.parameter.detach())
            if geometry.resident:
                after = torch.where(self.rescaled(name), self.rung_before(name), after)
            self._rungs_after[name] = after
        return self._rungs_after[name]

    def rescaled(self, name: str) -> Tensor:
        """Where the update has changed the scale (bool, broadcasting against the weight).

        Raises:
            RuntimeError: asked for before the update, or without :meth:`rung_before` before it.
            KeyError: ``name`` is not a quantised weight.
        """
        geometry = self._geometry(name)
        self._refuse_before_update("rescaled", name)
        if not geometry.resident:
            return torch.zeros((), dtype=torch.bool, device=self.device)
        self.rung_before(name)
        return geometry.scale() != self._scales[name]

    def _geometry(self, name: str) -> WeightGeometry:
        try:
            return self.weights[name]
        except KeyError:
            known = ", ".join(self.weights) or "none"
            raise KeyError(f"{name!r} is not a quantised weight; there are: {known}.") from None

    def _refuse_before_update(self, method: str, name: str) -> None:
        if not self._updated:
            raise RuntimeError(
                f"{method}({name!r}) was asked for before the update of step {self.step}; "
                f"ask for it in after_update."
            )

    def _refuse_after_update(self, method: str, name: str) -> None:
        if self._updated:
            raise RuntimeError(
                f"{method}({name!r}) was first asked for after the update of step {self.step}, "
                f"when the old weight is gone; ask for it in before_update as well."
            )

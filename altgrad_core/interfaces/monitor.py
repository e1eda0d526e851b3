"""What a monitor must be: an observer of the step loop that returns metrics.

Metric names have the form ``family/layer/metric``; ``layer`` is a parameter or module name, or ``all``
for the whole model. Values are floats or 0-d tensors on any device: tensors are moved to the host
together, once, when they are logged, so a monitor never has to synchronise the device itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.task import Batch


@dataclass(frozen=True)
class Event:
    """Something that happened once and that a reader should see, e.g. ``("rank_collapse", "layer.0…", "…")``."""

    kind: str
    layer: str
    message: str
    alert: bool = False
    """Whether trackers should alert their users."""


@dataclass
class Observation:
    """What a monitor saw: metrics, events, and what it asks for.

    stop:
        the reason, if the run should end after this step.
    skip_update:
        from ``before_update`` only: the optimizer takes no step this time.
    shifts:
        weights that should move to another format before the next step: parameter name -> format,
        as a suite writes it (a name, or ``{"name": "exmy", "exponent_bits": 3, ...}``).

    The last two are for monitors with ``intervenes = True``; from others they are errors.
    """

    metrics: dict[str, float | Tensor] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    stop: str | None = None
    skip_update: bool = False
    shifts: dict[str, Any] = field(default_factory=dict)


class Clock(Protocol):
    """Work done and time spent in training steps; evaluation, checkpoints and logging are left out."""

    steps: int
    samples: int
    tokens: int

    def seconds(self) -> float:
        """Seconds spent in training steps so far. Waits for the device, so call it only when due."""


class RunView(Protocol):
    """What a monitor sees of the run."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    weights: Mapping[str, WeightGeometry]
    """The quantised weights, by parameter name, in model order."""
    device: torch.device
    step: int
    """The step being taken, from 1."""
    max_steps: int
    clock: Clock

    def probe_batch(self, samples: int) -> Batch:
        """A fixed training batch, on the device: the same for all steps and for all cells of a seed."""

    def replay(
        self, batch: Batch | None = None, *, reference: bool = False
    ) -> AbstractContextManager[Tensor]:
        """The loss of ``batch`` at the present weights, with its graph, for ``torch.autograd.grad``.

        Nothing of it is seen by the run: gradients, random numbers, scales and modes are as before.
        Without ``batch``: this step's batch, dropout included, so that the loss is the step's own.
        With one: in eval mode. With ``reference``: in float32, without autocast, with the latent
        weights and nothing rounded, on kernels that can be differentiated twice. The graph lives
        inside the context only. Enter it in a step, or between two.
        """


class StepView(RunView, Protocol):
    """The run around one update. Copies are made on first ask and shared by all monitors of the step."""

    loss: Tensor
    """Detached loss of the step, 0-d, on the device."""
    batch: Batch
    """The batch of the step, on the device."""

    def weight_before(self, name: str) -> Tensor:
        """The parameter as it was before the update (float32). Must be asked for in ``before_update`` first."""

    def rung_before(self, name: str) -> Tensor:
        """Rungs before the update, under the scale of this step. Must be asked for in ``before_update`` first."""

    def ulp_before(self, name: str) -> Tensor:
        """Gap ``S(w)`` at each weight before the update, under the scale of this step.

        Must be asked for in ``before_update`` first: the update may change the scale.
        """

    def weight_intended(self, name: str) -> Tensor:
        """The weight as the optimizer wanted it (float32). Only in ``after_update``.

        A resident weight is then rounded back to its grid; of a master this is the new weight
        itself. :meth:`weight_before` must have been asked for in ``before_update``.
        """

    def rung_after(self, name: str) -> Tensor:
        """Rungs after the update, under the same scale as :meth:`rung_before`. Only in ``after_update``.

        Where the update has changed the scale of a resident weight there is no such thing; there it
        is :meth:`rung_before`, since a change of scale is no flip. See :meth:`rescaled`.
        """

    def rescaled(self, name: str) -> Tensor:
        """Where the update has changed the scale: bool, broadcasting against the weight.

        Only in ``after_update``, after :meth:`rung_before` was asked for in ``before_update``.
        """

    def reference_gradients(self) -> Mapping[str, Tensor]:
        """Gradients of this step's batch in float32 with nothing rounded, by parameter name.

        One pass of :meth:`replay` with ``reference``, shared by all monitors of the step. Only in
        ``before_update``.
        """


class Monitor:
    """Base of monitors: every hook does nothing until overridden.

    ``before_update`` and ``after_update`` are called only in steps where :meth:`due` is true. An
    exception from any hook is recorded as an event and switches the monitor off; the run goes on.
    """

    interval: int = 1
    """Steps between measurements."""
    intervenes: bool = False
    """Whether it may change gradients, skip updates and shift formats. It is then called before the others."""

    waits: bool = False
    """Whether the update hooks read on the host what they measure (an event at a threshold, a solver), so that
    the steps in which it is due wait for the device. The conformance check holds all others to not doing so."""

    def due(self, step: int) -> bool:
        """Whether this monitor measures at ``step`` (counted from 1)."""
        return step == 1 or step % self.interval == 0

    def start(self, run: RunView) -> Observation | None:
        """Called once, before the first step (and again after a restart, before the state is loaded)."""
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Called after the backward pass, before the optimizer's step: gradients and old weights are there."""
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Called after the optimizer's step; gradients are still there."""
        return None

    def evaluation(self, run: RunView, metrics: Mapping[str, float]) -> Observation | None:
        """Called after every evaluation with its metrics."""
        return None

    def end(self, run: RunView) -> Observation | None:
        """Called once when the run has ended by itself (finished or diverged)."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """State for checkpoints: tensors, numbers, strings, lists and dicts of those."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""

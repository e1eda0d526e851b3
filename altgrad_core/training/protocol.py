"""One step as monitors see it, the same in the step loop of a run and in anybody's (``MonitorSession``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.task import Batch
from altgrad_core.training.clock import StepClock
from altgrad_core.training.monitoring import MonitorPanel, Outcome
from altgrad_core.training.view import Run, StepView


class MonitoredStep:
    """What happens around forward, backward and update: the clock, and the monitors that are due.

    ``begin``, forward and backward, ``before_update``, the update, ``after_update``; or ``abandon``, at
    any point, for a step that comes to nothing.
    """

    def __init__(self, run: Run, panel: MonitorPanel, clock: StepClock) -> None:
        self._run, self._panel, self._clock = run, panel, clock
        self._view: StepView | None = None

    def begin(self, step: int) -> None:
        """Step number ``step``, from 1, begins."""
        self._run.step = step
        self._clock.start()

    def before_update(self, loss: Tensor, batch: Batch | None) -> Outcome:
        """After the backward pass: whether the update is to be left out."""
        self._view = StepView(self._run, loss.detach(), batch)
        with self._clock.paused():
            return self._panel.before_update(self._view)

    def after_update(self) -> Outcome:
        """After the update, while the gradients are still there: what the monitors saw."""
        view, self._view = self._view, None
        assert view is not None
        batch = view._batch
        self._clock.stop(
            samples=0 if batch is None else batch.samples,
            tokens=0 if batch is None else batch.tokens,
        )
        outcome = self._panel.after_update(view)
        self._forget()
        return outcome

    def abandon(self) -> None:
        """The step counts for nothing, and its number is free again."""
        self._run.step -= 1
        self._view = None
        self._clock.abandon()
        self._panel.abandon()
        self._forget()

    def _forget(self) -> None:
        if self._run.residency is not None:
            self._run.residency.forget()


def carry_out(outcome: Outcome, shift: Callable[[str, Any], None]) -> None:
    """Move weights to other formats as monitors ask; one that cannot be moved is an event."""
    for name, wanted in outcome.shifts.items():
        try:
            shift(name, wanted)
        except Exception as error:  # what a monitor asks for must not end the run
            message = f"the shift to {wanted} failed: {type(error).__name__}: {error}"
            outcome.events.append(Event("shift_failed", name, message, alert=True))

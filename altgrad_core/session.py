"""``MonitorSession``: the monitors of this project in a training loop of anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.monitor import Event, Monitor
from altgrad_core.interfaces.task import Batch, Task
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.modules.linear import quantizers_of
from altgrad_core.quantization.residency import GridResidency, nobody_keeps
from altgrad_core.quantization.settings import FormatChoice, as_format_choice
from altgrad_core.quantization.surgery import change_format
from altgrad_core.registry.catalog import catalog
from altgrad_core.training.clock import StepClock
from altgrad_core.training.monitoring import MonitorPanel, Outcome
from altgrad_core.training.protocol import MonitoredStep, carry_out
from altgrad_core.training.replay import Replayer
from altgrad_core.training.seeds import derive_seed, random_state
from altgrad_core.training.view import Run

_NO_WEIGHTS = (
    "the model has no quantised weights, so monitors of weights have nothing to report: call "
    "quantize_model(model, format) before MonitorSession(model, optimizer)"
)
Choice = str | Monitor | tuple[str, Mapping[str, Any]]
"""A monitor, the name of one, or its name and settings."""


class MonitorSession:
    """Monitors around the steps of a training loop::

        session = MonitorSession(model, optimizer, monitors=["flips", "stalls"])
        for batch in batches:
            with session.step():
                loss = loss_of(model, batch)
                loss.backward()
            seen = session.update(loss)  # calls optimizer.step()
            optimizer.zero_grad()
        session.end()

    model, optimizer:
        after ``quantize_model``, and after ``keep_on_grid`` where weights live on the grid.
    monitors:
        each a name (``"flips"``), a name with settings (``("flips", {"interval": 10})``), or a
        ``Monitor``. One that fails is switched off, which is an event; training goes on.
    task:
        what monitors that repeat passes (curvature, gradient noise, …) take their loss and batches
        from; without one they are switched off, with an event. Their ``update`` needs the step's ``batch``. Passes are
        repeated with the random numbers that ``step`` began with; autocast belongs into ``task.loss``.
    max_steps:
        the last step, at which every monitor is due; 0 if that is not known.
    seed:
        of the random numbers of repeated passes.

    Raises ``UserError`` for an unknown monitor or wrong settings, for weights on a grid that nobody
    keeps there, and for calls out of order.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        monitors: Sequence[Choice] = (),
        task: Task | None = None,
        *,
        max_steps: int = 0,
        seed: int = 0,
    ) -> None:
        _refuse_misuse(model, optimizer, monitors)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.events: list[Event] = []
        """Everything that monitors have reported so far."""
        self.stopped: str | None = None
        """Why a monitor asked for the end of training; None if none did."""
        self._panel = MonitorPanel([_built(choice) for choice in monitors])
        self._clock = StepClock(device)
        weights = weight_geometry(model)
        self._run = Run(
            model=model,
            optimizer=optimizer,
            weights=weights,
            device=device,
            max_steps=max_steps,
            clock=self._clock,
            replayer=None if task is None else self._replayer(model, task, device, seed),
            residency=GridResidency(model),
        )
        self._geometry = weights
        self._step = MonitoredStep(self._run, self._panel, self._clock)
        self._begun = self._updating = False
        if not weights:
            self.events.append(Event("no_weights", "all", _NO_WEIGHTS))
        self._taken(self._panel.start(self._run))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around forward and backward of one step, micro-batches included: weights are rounded once."""
        if self._begun:
            raise UserError(
                "MonitorSession.step() was entered again before the update of the last: call "
                "session.update(loss) in place of optimizer.step(). A step whose update is left out takes "
                "session.update(loss, step=lambda: None)."
            )
        self._begun = True
        self._step.begin(self._run.step + 1)
        if self._run.replayer is not None:
            self._rewind = random_state(self._run.device, self._generator)
        with self._abandoned_on_error(), hold_weights(self._run.model):
            yield

    def update(
        self, loss: Tensor, batch: Batch | None = None, *, step: Callable[[], Any] | None = None
    ) -> Outcome:
        """Take the optimizer's step, with what is due before and after it.

        loss:
            of the step, 0-d.
        batch:
            of the step, for monitors that repeat it or count its tokens.
        step:
            what to call in place of ``optimizer.step()``, e.g. ``lambda: scaler.step(optimizer)``.
            Gradients should be unscaled by then.
        """
        skip = self.before_update(loss, batch).skip_update
        with self._abandoned_on_error():
            if not skip:
                (step or self._run.optimizer.step)()
        return self.after_update()

    def before_update(self, loss: Tensor, batch: Batch | None = None) -> Outcome:
        """After the backward pass. If its ``skip_update`` is true, leave the optimizer's step out."""
        if not self._begun:
            raise UserError(
                "MonitorSession saw an update without a step: put forward and backward into "
                "`with session.step():`."
            )
        if not isinstance(loss, Tensor):
            raise UserError(
                f"The loss of a step is given as a 0-d tensor, not as a {type(loss).__name__}."
            )
        self._updating = True
        return self._step.before_update(loss, batch)

    def after_update(self) -> Outcome:
        """After the optimizer's step, before ``zero_grad``: the metrics of the step, and its events."""
        if not self._updating:
            raise UserError("MonitorSession.after_update() needs before_update(loss) before it.")
        self._begun = self._updating = False
        return self._taken(self._step.after_update())

    def evaluation(self, metrics: Mapping[str, float]) -> Outcome:
        """After an evaluation of yours, with its metrics."""
        return self._taken(self._panel.evaluation(self._run, metrics))

    def end(self) -> Outcome:
        """When training is over."""
        return self._taken(self._panel.end(self._run))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to go on from here."""
        return {
            "step": self._run.step,
            "monitors": self._panel.state_dict(),
            "clock": self._clock.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up :meth:`state_dict`."""
        self._run.step = state["step"]
        self._panel.load_state_dict(state["monitors"])
        self._clock.load_state_dict(state["clock"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.end()

    def _replayer(self, model: nn.Module, task: Task, device: torch.device, seed: int) -> Replayer:
        probe = derive_seed(seed, "probe")
        drawn_from = (q.generator for q in quantizers_of(model) if q.generator is not None)
        self._generator = next(drawn_from, None)
        return Replayer(
            model,
            task.loss,
            lambda samples: task.batch(1, samples, probe),
            device=device,
            seed=seed,
            generator=self._generator,
            rewind=lambda step: self._rewind(),
        )

    @contextmanager
    def _abandoned_on_error(self) -> Iterator[None]:
        """A step that ends in an exception counts for nothing, and the next one may begin."""
        try:
            yield
        except BaseException:
            self._begun = self._updating = False
            self._step.abandon()
            raise

    def _shift(self, name: str, wanted: Any) -> None:
        choice = FormatChoice.model_validate(as_format_choice(wanted))
        change_format(self._geometry[name], catalog().build("format", choice.name, choice.settings))

    def _taken(self, outcome: Outcome) -> Outcome:
        """Note what happened, and carry out the shifts of formats that were asked for."""
        carry_out(outcome, self._shift)
        self.events += outcome.events
        self.stopped = self.stopped or outcome.stop
        return outcome


def _refuse_misuse(model: object, optimizer: object, monitors: object) -> None:
    if not isinstance(model, nn.Module) or not callable(getattr(optimizer, "step", None)):
        raise UserError(
            f"MonitorSession takes an nn.Module and a torch.optim.Optimizer, not a "
            f"{type(model).__name__} and a {type(optimizer).__name__}."
        )
    if isinstance(monitors, str):
        raise UserError(f"monitors is a list, such as [{monitors!r}], not one name.")
    if nobody_keeps(model):
        raise UserError(
            "The model has weights that live on a grid, and nobody keeps them there. Call "
            "keep_on_grid(model, optimizer) before MonitorSession(model, optimizer)."
        )


def _built(choice: Choice) -> tuple[str, Monitor]:
    if isinstance(choice, str):
        return choice, catalog().build("monitor", choice, {})
    if isinstance(choice, tuple):
        return choice[0], catalog().build("monitor", choice[0], dict(choice[1]))
    if not callable(getattr(choice, "due", None)) or isinstance(choice, type):
        raise UserError(
            f"A monitor is given by name, as (name, settings) or as a Monitor, not as {choice!r}."
        )
    return type(choice).__name__, choice

"""Non-finite numbers: the first tensor with a NaN or inf, and the step at which it had it.

In every step, whatever the interval, these are looked at, in the order of cause and effect:

=============  ====================================================================================
Forward        outputs of modules, in the order in which they are computed (``outputs: quantized``,
               those of the quantised layers; ``all``, those of every module without children);
               then the loss
Backward       gradients of all parameters, in the order in which they are computed, before any
               clipping
Optimizer      all trained parameters after the update; at the interval, and in a step that has something
               else, also the state that the optimizer keeps of them
=============  ====================================================================================

What comes later in this order is usually the consequence. ``nonfinite/all/<metric>``:

==============  ==================================================================================
``forward``     steps so far in which an output or the loss was non-finite
``backward``    steps so far in which a gradient was
``optimizer``   steps so far after which a parameter, or the optimizer's state, was
``first_step``  the first step with any of them; 0 while there is none
==============  ==================================================================================

Events ``nan_forward``, ``nan_backward`` and ``nan_optimizer``, once in a run each: the first module
(or ``loss``) or parameter of that kind and its step, which is exact at every interval, save for optimizer state,
which is not looked at in every step. On the CPU the event comes in that step. Elsewhere steps are put down
on the device, and the event comes with the next reading, at the interval.

With ``stop``, the run ends when ``patience`` steps have followed the first of an unbroken row of non-finite
ones. Passes that are repeated for measurement, and evaluation, are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from altgrad_core.interfaces.monitor import Event, Monitor, Observation, RunView, StepView
from altgrad_core.quantization.modules.linear import QuantizedModule
from altgrad_plugins.monitors.layers import ALL
from altgrad_plugins.monitors.stability import alarms
from altgrad_plugins.monitors.stability.ledgers import (
    PASSES,
    EagerLedger,
    Findings,
    First,
    Ledger,
    Stage,
    as_state,
    from_state,
    ledger,
)
from altgrad_plugins.monitors.stability.settings import NonfiniteSettings

_KINDS = {
    Stage.OUTPUT: alarms.NAN_FORWARD,
    Stage.LOSS: alarms.NAN_FORWARD,
    Stage.GRADIENT: alarms.NAN_BACKWARD,
    Stage.WEIGHT: alarms.NAN_OPTIMIZER,
    Stage.STATE: alarms.NAN_OPTIMIZER,
}
_WORDS = {
    Stage.OUTPUT: "output",
    Stage.LOSS: "loss",
    Stage.GRADIENT: "gradient",
    Stage.WEIGHT: "weight after the update",
    Stage.STATE: "optimizer state",
}


class _Handle(Protocol):
    def remove(self) -> None: ...


class NonfiniteMonitor(Monitor):
    """``nonfinite/all/{forward, backward, optimizer, first_step}``, and events that name tensors."""

    waits = True  # a run that has broken ends at once

    def __init__(self, settings: NonfiniteSettings) -> None:
        self.interval = settings.interval
        self._all_outputs = settings.outputs == "all"
        self._patience = settings.patience if settings.stop else None
        self._last = 0
        self._handles: list[_Handle] = []
        self._gradient_handles: list[_Handle] = []
        self._error: Exception | None = None
        self._ledger: Ledger = EagerLedger()
        self._parameters: dict[nn.Parameter, str] = {}
        self._order: list[nn.Parameter] = []
        self._seen: set[str] = set()
        self._raised: list[str] = []

    def due(self, step: int) -> bool:
        """In every step; it measures, that is, reads, only at the interval."""
        return True

    def start(self, run: RunView) -> Observation | None:
        """Put hooks on modules and parameters."""
        self._last = run.max_steps
        self._ledger = ledger(run.device)
        own = _own_pass(run.model)
        for path, module in run.model.named_modules():
            if isinstance(module, QuantizedModule) or (self._all_outputs and _is_leaf(module)):
                hook = self._output_hook(path or "model", own)
                self._handles.append(module.register_forward_hook(hook))
        for name, parameter in run.model.named_parameters():
            if parameter.requires_grad:
                self._parameters[parameter] = name
                self._gradient_handles.append(_on_gradient(parameter, self._learn_order))
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Look at the loss, and at gradients that no backward pass has brought."""
        if self._error is not None:
            self._close()
            raise self._error
        self._ledger.note(Stage.LOSS, "loss", step.loss)
        unseen = (p for p, name in reversed(self._parameters.items()) if name not in self._seen)
        self._note_gradients(unseen)
        self._seen.clear()
        if self._order and len(self._gradient_handles) > 1:
            self._watch_last_gradient()
        return None

    def after_update(self, step: StepView) -> Observation | None:
        """Look at the parameters, and at the interval at the rest; report what is known."""
        book, reads = self._ledger, super().due(step.step) or step.step == self._last
        book.note_all(Stage.WEIGHT, {name: p for p, name in self._parameters.items()})
        if reads or (isinstance(book, EagerLedger) and book.alarmed):
            for parameter, name in self._parameters.items():
                for value in step.optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.is_floating_point():
                        book.note(Stage.STATE, name, value)
        found_now = book.close(step.step)
        if not reads and not found_now:
            return None
        found = book.read()
        return Observation(
            self._metrics(found) if reads else {},
            self._events(found),
            stop=self._stop(found, step.step),
        )

    def end(self, run: RunView) -> Observation | None:
        """Report what has not been read yet, and take the hooks off."""
        self._close()
        return Observation(events=self._events(self._ledger.read()))

    def state_dict(self) -> dict[str, Any]:
        """First steps, counts, and which events were raised."""
        return as_state(self._ledger.read()) | {"raised": list(self._raised)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._ledger.load(from_state(state))
        self._raised = list(state["raised"])

    def _metrics(self, found: Findings) -> dict[str, float | Tensor]:
        metrics: dict[str, float | Tensor] = {
            f"nonfinite/{ALL}/{name}": count
            for name, count in zip(PASSES, found.counts, strict=True)
        }
        first = found.firsts[0].step if found.firsts else 0
        return metrics | {f"nonfinite/{ALL}/first_step": first}

    def _events(self, found: Findings) -> list[Event]:
        """The first of each kind that has not been raised."""
        events = []
        for first in found.firsts:
            kind = _KINDS[first.stage]
            if kind not in self._raised:
                self._raised.append(kind)
                events.append(_event(first, found.firsts[0]))
        return events

    def _stop(self, found: Findings, step: int) -> str | None:
        if self._patience is None or found.streak <= self._patience:
            return None
        return f"non-finite in each of the steps {step - found.streak + 1} to {step}"

    def _output_hook(
        self, name: str, own: Callable[[nn.Module], bool]
    ) -> Callable[[nn.Module, Any, Any], None]:
        def observe(module: nn.Module, args: Any, output: Any) -> None:
            if own(module):
                try:
                    for x in _tensors(output):
                        self._ledger.note(Stage.OUTPUT, name, x)
                except Exception as error:
                    self._error = error

        return observe

    def _learn_order(self, parameter: nn.Parameter) -> None:
        """The hook of every parameter in the first step: gradients come in this order."""
        self._order.append(parameter)
        self._look_at_gradients([parameter])

    def _watch_last_gradient(self) -> None:
        """From now on, look at all gradients when the last one is there. Nothing has clipped them yet."""
        for handle in self._gradient_handles:
            handle.remove()
        self._order = list(dict.fromkeys(self._order))
        self._gradient_handles = [
            _on_gradient(self._order[-1], lambda _: self._look_at_gradients(self._order))
        ]

    def _look_at_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        try:
            self._note_gradients(parameters)
        except Exception as error:
            self._error = error

    def _note_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        gradients = {self._parameters[p]: p.grad for p in parameters if p.grad is not None}
        self._ledger.note_all(Stage.GRADIENT, gradients)
        self._seen |= gradients.keys()

    def _close(self) -> None:
        for handle in (*self._handles, *self._gradient_handles):
            handle.remove()
        self._handles.clear()
        self._gradient_handles.clear()


def _event(first: First, cause: First) -> Event:
    found = "found at" if first.stage == Stage.STATE else "at"
    message = f"first non-finite {_WORDS[first.stage]} {found} step {first.step}"
    if first is not cause:
        message += f", after {_KINDS[cause.stage]} in {cause.name!r} at step {cause.step}"
    return Event(_KINDS[first.stage], first.name, message, alert=first is cause)


def _on_gradient(parameter: nn.Parameter, hook: Callable[[nn.Parameter], None]) -> _Handle:
    """Call ``hook`` with the parameter whenever a backward pass has brought its gradient."""
    handle: _Handle = parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
    return handle


def _own_pass(model: nn.Module) -> Callable[[nn.Module], bool]:
    """Whether a forward pass is a training step's own, and not repeated for measurement."""
    quantized = [m for m in model.modules() if isinstance(m, QuantizedModule)]
    witness = next((m for m in quantized if m.weight_quantizers), None)

    def own(module: nn.Module) -> bool:
        if not module.training or (witness is not None and witness.bypassed):
            return False
        return witness is None or next(iter(witness.weight_quantizers.values())).recording

    return own


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None


def _tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors that a module returns."""
    values = output if isinstance(output, tuple | list) else (output,)
    for value in values:
        if isinstance(value, Tensor) and value.is_floating_point():
            yield value

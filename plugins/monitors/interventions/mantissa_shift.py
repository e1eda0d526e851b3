"""Moves layers to another format when theirs fails: to more mantissa on stalls, to more range on NaN.

=============  ====================================================================================
On NaN         a step in which the gradient of any parameter has a NaN or inf is skipped: the
               optimizer takes no step. After ``patience`` such steps in a row, each watched layer
               whose own gradient was broken in all of them (scope ``model``: every watched layer)
               moves along ``on_nan``
On stalls      after ``patience`` measurements in a row in which more than ``threshold`` of a
               layer's intended updates left its rung unchanged (scope ``model``: of those of all
               together), it moves along ``on_stall``. Resident weights, unless ``masters``. The
               definitions are those of ``stalls``
=============  ====================================================================================

A move takes a layer to the format behind its own in the chain, from the next step on. Its own is
found by name, or, once it has moved, as the entry that it moved to. A layer whose format is the last, or not
in the chain, or that has moved ``most`` times, stays.

Whether to skip has to be known before the update, so the host reads one flag for each gradient in every
step, as gradient scalers do: on an accelerator that waits for the backward pass.
A run whose loss stays NaN ends as diverged after ``training.divergence_patience`` steps (10), so ``patience``
should be smaller.

================  =============================================
``shifts``        moves of the layer so far (``all``: of all)
``skipped``       updates skipped so far (``all`` only)
================  =============================================

Under ``shift/<layer>/…``. Events: ``format_shift``, at every move, with the formats; ``format_chain_end``, once
for each layer that should move and cannot; ``update_skipped``, at the first skipped update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from altgrad_core import load_format
from altgrad_core.interfaces.monitor import Event, Observation, RunView, StepView
from altgrad_core.quantization.settings import FormatChoice
from altgrad_plugins.monitors.interventions.settings import MantissaShiftSettings
from altgrad_plugins.monitors.layers import ALL, LayerMonitor
from altgrad_plugins.monitors.stability.alarms import Alarms
from altgrad_plugins.monitors.stability.stalls import StallWatch, moved_and_same
from altgrad_plugins.monitors.tensors import largest

FORMAT_SHIFT = "format_shift"
FORMAT_CHAIN_END = "format_chain_end"
UPDATE_SKIPPED = "update_skipped"


class MantissaShiftMonitor(LayerMonitor):
    """``shift/<layer>/shifts``, ``shift/all/skipped``; see the module for when it acts."""

    intervenes = True
    waits = True  # a shift is decided on the host

    def __init__(self, settings: MantissaShiftSettings) -> None:
        super().__init__(settings.interval, settings.layers)
        self._chains = {
            "stall": tuple(as_written(entry) for entry in settings.on_stall),
            "nan": tuple(as_written(entry) for entry in settings.on_nan),
        }
        self._whole = settings.scope == "model"
        self._patience, self._most = settings.patience, settings.most
        self._masters = settings.masters
        self._stalls = StallWatch(settings.threshold, settings.patience)
        self._broken: dict[str, int] = {}
        self._at: dict[str, Any] = {}
        self._moves: dict[str, int] = {}
        self._skipped = 0
        self._skips = False
        self._alarms = Alarms()

    def due(self, step: int) -> bool:
        """In every step: a broken gradient that is not stopped now is applied."""
        return True

    def start(self, run: RunView) -> Observation | None:
        """Choose the layers. Raises ``UserError`` for a format that cannot be built."""
        super().start(run)
        for chain in self._chains.values():
            for entry in chain:
                settings = {"name": entry} if isinstance(entry, str) else dict(entry)
                load_format(settings.pop("name"), **settings)
        return None

    def before_update(self, step: StepView) -> Observation | None:
        """Skip a step with broken gradients, and move on after too many of them."""
        seen = Observation()
        self._skips = False
        if self._chains["nan"]:
            self._judge_gradients(step, seen)
        if self._measures(step) and not self._skips:
            for name in self._judged(step):
                step.weight_before(name)
                step.rung_before(name)
        return seen

    def after_update(self, step: StepView) -> Observation | None:
        """Measure stalls at the interval, and report."""
        seen = Observation()
        if self._measures(step) and not self._skips:
            self._judge_stalls(step, seen)
        if self.layers and super().due(step.step):
            for name in self.layers:
                seen.metrics[f"shift/{name}/shifts"] = self._moves.get(name, 0)
            seen.metrics[f"shift/{ALL}/shifts"] = sum(self._moves.values())
            seen.metrics[f"shift/{ALL}/skipped"] = self._skipped
        return seen

    def state_dict(self) -> dict[str, Any]:
        """Where each layer is, what it has been through, and which events were raised."""
        return {
            "at": dict(self._at),
            "moves": dict(self._moves),
            "broken": dict(self._broken),
            "stalls": self._stalls.state(),
            "skipped": self._skipped,
            "raised": self._alarms.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._at, self._moves = dict(state["at"]), dict(state["moves"])
        self._broken, self._skipped = dict(state["broken"]), state["skipped"]
        self._stalls.load(state["stalls"])
        self._alarms.load(state["raised"])

    def _judge_gradients(self, step: StepView, seen: Observation) -> None:
        broken = _broken_gradients(step)
        self._skips = seen.skip_update = bool(broken)
        if not broken:
            self._broken.clear()
            return
        self._skipped += 1
        message = f"step {step.step} is skipped: the gradient of {broken[0]} is not finite"
        seen.events += self._alarms.new([Event(UPDATE_SKIPPED, ALL, message)])
        units = [ALL] if self._whole else [name for name in self.layers if name in broken]
        self._broken = {unit: self._broken.get(unit, 0) + 1 for unit in units}
        tired = [unit for unit, steps in self._broken.items() if steps >= self._patience]
        for unit in tired:
            del self._broken[unit]
        reason = f"{self._patience} steps in a row with a gradient that is not finite"
        self._move(step, "nan", tired, reason, seen)

    def _judge_stalls(self, step: StepView, seen: Observation) -> None:
        """Reads the counts of all layers: one transfer, in the interval."""
        names = self._judged(step)
        if not names:
            return
        masks = [moved_and_same(step, name) for name in names]
        pairs = [(torch.count_nonzero(moved & same), moved.sum()) for moved, same in masks]
        counts: list[list[int]] = torch.stack([torch.stack(pair) for pair in pairs]).tolist()
        if self._whole:
            names, counts = [ALL], [[sum(column) for column in zip(*counts, strict=True)]]
        ratios = {
            name: stalled / intended if intended else float("nan")
            for name, (stalled, intended) in zip(names, counts, strict=True)
        }
        tired = self._stalls.take(ratios)
        for unit in tired:
            self._stalls.restart([unit])
            self._move(step, "stall", [unit], self._stalls.message(ratios[unit], step.step), seen)

    def _measures(self, step: StepView) -> bool:
        return bool(self._chains["stall"]) and super().due(step.step)

    def _judged(self, step: StepView) -> list[str]:
        """The layers whose stalls count."""
        return [name for name in self.layers if self._masters or step.weights[name].resident]

    def _move(
        self, step: StepView, cause: str, units: Sequence[str], reason: str, seen: Observation
    ) -> None:
        """Ask for the next format of each layer in ``units``."""
        for name in self.layers:
            if name not in units and ALL not in units:
                continue
            here = self._at.get(name, step.weights[name].format.name)
            there = _behind(here, self._chains[cause])
            if there is None or self._moves.get(name, 0) >= self._most:
                why = (
                    f"{self._most} moves were made" if there else f"no format behind {_label(here)}"
                )
                message = f"stays at step {step.step}, since {why}: {reason}"
                seen.events += self._alarms.new([Event(FORMAT_CHAIN_END, name, message)])
                continue
            self._at[name] = seen.shifts[name] = there
            self._moves[name] = self._moves.get(name, 0) + 1
            message = f"{_label(here)} -> {_label(there)} after step {step.step}: {reason}"
            seen.events.append(Event(FORMAT_SHIFT, name, message, alert=True))


def as_written(choice: FormatChoice) -> Any:
    """A format as a suite writes it: its name, or a mapping with its settings."""
    return {"name": choice.name, **choice.settings} if choice.settings else choice.name


def _behind(here: Any, chain: Sequence[Any]) -> Any | None:
    """The entry behind ``here``, which is an entry or the name of a format."""
    places = [index for index, entry in enumerate(chain) if entry == here]
    if isinstance(here, str):
        places += [index for index, entry in enumerate(chain) if _name(entry) == here]
    return chain[places[0] + 1] if places and places[0] + 1 < len(chain) else None


def _name(entry: Any) -> str:
    name: str = entry if isinstance(entry, str) else entry["name"]
    return name


def _label(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    settings = ", ".join(f"{key}={value}" for key, value in entry.items() if key != "name")
    return f"{entry['name']}({settings})"


def _broken_gradients(step: StepView) -> list[str]:
    """Parameters whose gradient has a NaN or inf. Waits for the device."""
    gradients: dict[str, Tensor] = {
        name: parameter.grad
        for name, parameter in step.model.named_parameters()
        if parameter.grad is not None and parameter.grad.numel()
    }
    if not gradients:
        return []
    finite = torch.isfinite(largest(list(gradients.values()))).tolist()
    return [name for name, fine in zip(gradients, finite, strict=True) if not fine]

"""Events that are raised once for each layer: the kinds of this family, and who had one already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from altgrad_core.interfaces.monitor import Event

OVERFLOW_FORWARD = "overflow_forward"
UNDERFLOW_FORWARD = "underflow_forward"
OVERFLOW_BACKWARD = "overflow_backward"
UNDERFLOW_BACKWARD = "underflow_backward"
NAN_FORWARD = "nan_forward"
NAN_BACKWARD = "nan_backward"
NAN_OPTIMIZER = "nan_optimizer"
STALL = "stall"


class Alarms:
    """Passes on each event whose kind and layer have not been seen before."""

    def __init__(self) -> None:
        self._raised: list[list[str]] = []

    def new(self, events: Iterable[Event]) -> list[Event]:
        """Those of ``events`` that are the first of their kind and layer."""
        fresh = []
        for event in events:
            key = [event.kind, event.layer]
            if key not in self._raised:
                self._raised.append(key)
                fresh.append(event)
        return fresh

    def state(self) -> list[list[str]]:
        """For a checkpoint: kind and layer of every event so far."""
        return [list(key) for key in self._raised]

    def load(self, state: Iterable[Any]) -> None:
        """Take up :meth:`state`."""
        self._raised = [list(key) for key in state]

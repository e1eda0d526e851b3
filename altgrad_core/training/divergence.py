"""Watching the loss for NaN and inf without synchronising the device in every step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Diverged(Exception):
    """The loss stayed NaN or inf for longer than the patience. A finding, not a failure."""

    def __init__(self, step: int, first_step: int, where: str) -> None:
        self.step, self.first_step, self.where = step, first_step, where
        super().__init__(
            f"the loss was NaN or inf from step {first_step} on (stopped at step {step}); "
            f"non-finite first in {where}"
        )


class DivergenceWatch:
    """Counts consecutive steps with a non-finite loss, on the device.

    ``check`` reads the count: every step on the CPU, where reading is free, and at the log interval on an
    accelerator.
    """

    def __init__(self, patience: int, device: torch.device) -> None:
        self.patience = patience
        self.eager = device.type == "cpu"
        self._streak = torch.zeros((), dtype=torch.int64, device=device)
        self._first = torch.zeros((), dtype=torch.int64, device=device)

    def update(self, loss: Tensor, step: int) -> None:
        """Take in the loss of ``step``; no synchronisation."""
        bad = ~torch.isfinite(loss.detach())
        self._first = torch.where(bad & (self._streak == 0), step, self._first)
        self._streak = torch.where(bad, self._streak + 1, 0)

    def check(self, step: int, model: nn.Module) -> None:
        """Raise :class:`Diverged` if the patience is used up."""
        if int(self._streak) >= self.patience:
            raise Diverged(step, int(self._first), where_nonfinite(model))

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"streak": int(self._streak), "first": int(self._first)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the state of :meth:`state_dict`."""
        self._streak.fill_(state["streak"])
        self._first.fill_(state["first"])


def where_nonfinite(model: nn.Module) -> str:
    """The first parameter, else the first gradient, in model order, that holds a NaN or inf; else the forward pass."""
    for kind in ("parameter", "gradient of"):
        for name, parameter in model.named_parameters():
            tensor = parameter if kind == "parameter" else parameter.grad
            if tensor is not None and not bool(torch.isfinite(tensor).all()):
                return f"{kind} {name}"
    return "the forward pass (all parameters and gradients are finite)"

"""A monitor that does in each step, from the second on, what no monitor should: one fault of each kind a step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Monitor, Observation, StepView

PLANTED: dict[str, Callable[[Tensor], object]] = {
    "wait: item": lambda x: x.sum().item(),
    "wait: if": lambda x: 1 if x.sum() > 0 else 0,
    "wait: tolist": lambda x: x.tolist(),
    "wait: copy": lambda x: x.cpu(),
    "wait: copy into a tensor of the host": lambda x: torch.zeros(x.shape).copy_(x),
    "wait: nonzero": lambda x: x.nonzero(),
    "wait: mask": lambda x: x[x > 0],
    "wait: write by a mask": lambda x: x.clone().index_put_((x > 0,), x.sum()),
    "wait: unique": lambda x: x.unique(),
    "wait: repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "wait: event": lambda x: torch.cuda.Event().synchronize(),
    "wait: solver": lambda x: torch.linalg.eigh(x[:, None] * x),
    "blocking copy: tensor": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "blocking copy: new_tensor": lambda x: x.new_tensor([1.0, 2.0]),
    "blocking copy: to": lambda x: torch.zeros(3).to(x.device),
    "blocking copy: not pinned": lambda x: torch.zeros(3).to(x.device, non_blocking=True),
    "mixed devices: tensor": lambda x: x + torch.zeros(x.shape),
    "mixed devices: number": lambda x: x + torch.zeros(()),
    "mixed devices: generator": lambda x: torch.rand(
        3, device=x.device, generator=torch.Generator()
    ),
    "not deterministic: kthvalue": lambda x: x.kthvalue(1),
    "not deterministic: cumsum": lambda x: x.cumsum(0),
    "launches: one by one": lambda x: [x + number for number in range(20)],
}
"""What is done with a vector on the device, by the kind of the fault."""


class Faulty(Monitor):
    """In step 2 the first of them, and so on."""

    interval = 1

    def after_update(self, step: StepView) -> Observation | None:
        """Do it, whatever comes of it."""
        which = step.step - 2
        if 0 <= which < len(PLANTED):
            vector = next(p for p in step.model.parameters() if p.ndim == 1).detach()
            with contextlib.suppress(Exception):  # some are refused, as on a real device
                list(PLANTED.values())[which](vector)
        return None

"""The gradients of a batch, worked out part by part where there is no memory for all of it at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from altgrad_core.interfaces.task import Batch


def micro_batches(batch: Batch, parts: int) -> list[Batch]:
    """The batch in at most ``parts`` parts whose sizes differ by one at most; every example is in one."""
    parts = min(parts, batch.samples)
    if parts <= 1:
        return [batch]
    ends = [batch.samples * number // parts for number in range(parts + 1)]
    return [batch.rows(first, end - first) for first, end in pairwise(ends)]


def backward(batch: Batch, parts: int, loss_of: Callable[[Batch], Tensor]) -> Tensor:
    """Add the gradients of the mean loss of ``batch`` to those of the parameters; the loss, 0-d.

    The mean of the parts' means is weighted by their examples. Equal to that of the whole but for the order
    of sums where examples are worked out independently of each other: see ``docs/running.md``.
    """
    if len(pieces := micro_batches(batch, parts)) == 1:
        loss = loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss
    losses = []
    for piece in pieces:
        share = loss_of(piece) * (piece.samples / batch.samples)
        share.backward()  # type: ignore[no-untyped-call]
        losses.append(share.detach())
    return sum(losses[1:], start=losses[0])

"""Splitting a batch into equal parts."""

from __future__ import annotations

from altgrad_core.interfaces.task import Batch


def parts_of(batch: Batch, parts: int) -> list[Batch]:
    """``parts`` batches of equally many examples each, in order, or as many as there are examples.

    Examples that are left over are in no part.
    """
    parts = min(parts, batch.samples)
    size = batch.samples // max(parts, 1)
    return [batch.rows(first * size, size) for first in range(parts)]

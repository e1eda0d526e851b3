"""Splitting a batch into equal parts."""

from __future__ import annotations

from altgrad_core.interfaces.task import Batch


def parts_of(batch: Batch, parts: int) -> list[Batch]:
    """``parts`` batches of equally many examples each, in order, or as many as there are examples.

    Every tensor whose first dimension is ``batch.samples`` is cut along it; any other goes into
    each part as it is. Examples that are left over are in no part. Of the batch's tokens, which
    cannot be told apart, each part is given its share.
    """
    parts = min(parts, batch.samples)
    size = batch.samples // max(parts, 1)
    return [_rows(batch, first * size, size) for first in range(parts)]


def _rows(batch: Batch, first: int, size: int) -> Batch:
    tensors = {
        name: tensor[first : first + size]
        if tensor.ndim and tensor.shape[0] == batch.samples
        else tensor
        for name, tensor in batch.tensors.items()
    }
    return Batch(tensors, size, batch.tokens * size // batch.samples)

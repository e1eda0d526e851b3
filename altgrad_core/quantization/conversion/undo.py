"""A conversion that fails half way leaves the model as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def undone_on_error(modules: Sequence[nn.Module], weights: Sequence[Tensor]) -> Iterator[None]:
    """On any error put back what ``modules`` and ``weights`` were.

    That is the classes, attributes and buffers of the modules, and the values of buffers and weights,
    of which it keeps a copy for as long as the context lasts.
    """
    attributes = [(module, type(module), _copies(module.__dict__)) for module in modules]
    buffers = [b for module in modules for b in module.buffers(recurse=False)]
    kept = [*weights, *buffers]
    values = [tensor.detach().clone() for tensor in kept]
    try:
        yield
    except BaseException:
        for module, kind, before in attributes:
            module.__dict__.clear()
            module.__dict__.update(before)
            module.__class__ = kind
        with torch.no_grad():
            for tensor, value in zip(kept, values, strict=True):
                tensor.copy_(value)
        raise


def _copies(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a module; those that are dicts (buffers, quantizers, …) as copies."""
    return {k: copy(v) if isinstance(v, dict) else v for k, v in attributes.items()}

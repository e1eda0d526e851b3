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
    """Put classes and attributes of ``modules``, and the values of ``weights``, back on any error.

    Takes a copy of ``weights``, for as long as the context lasts.
    """
    attributes = [(module, type(module), _copies(module.__dict__)) for module in modules]
    values = [weight.detach().clone() for weight in weights]
    try:
        yield
    except BaseException:
        for module, kind, before in attributes:
            module.__dict__.clear()
            module.__dict__.update(before)
            module.__class__ = kind
        with torch.no_grad():
            for weight, value in zip(weights, values, strict=True):
                weight.copy_(value)
        raise


def _copies(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a module; those that are dicts (buffers, quantizers, …) as copies."""
    return {k: copy(v) if isinstance(v, dict) else v for k, v in attributes.items()}

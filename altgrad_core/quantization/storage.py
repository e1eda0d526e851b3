"""Checkpoints of resident weights: a byte for each weight of an 8-bit format, instead of four."""

from __future__ import annotations

from typing import Any

from torch import nn

from altgrad_core.quantization.kernels.packing import packed, unpacked
from altgrad_core.quantization.residency import resident_weights

_PACKED = "packed"


def compact_state(model: nn.Module) -> dict[str, Any]:
    """The state dict of ``model``, in which resident weights are packed; plain data and tensors.

    A weight that is not on its grid (it holds a NaN or inf, or something other than an optimizer
    has written it) is kept as it is. Looks at the weights, so it waits for the device.
    """
    state: dict[str, Any] = dict(model.state_dict())
    for name, (module, quantizer) in resident_weights(model).items():
        weight = quantizer.weight(module).detach()
        if quantizer.resident is not None and quantizer.resident.stores(module):
            values = weight / quantizer.scale(module) if quantizer.format.scaled else weight
            state[name] = {_PACKED: packed(values, quantizer.format)}
    return state


def load_compact_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Take up :func:`compact_state`; raises ``RuntimeError`` as ``load_state_dict`` does."""
    plain = dict(state)
    for name, (_, quantizer) in resident_weights(model).items():
        entry = state.get(name)
        if not isinstance(entry, dict):
            continue
        values = unpacked(entry[_PACKED], quantizer.format)
        if quantizer.format.scaled:
            prefix = name.removesuffix(quantizer.parameter)
            compact = state[f"{prefix}{quantizer.parameter}_scale"]
            values = values * quantizer.scaler.expanded(compact, values)
        plain[name] = values
    model.load_state_dict(plain)

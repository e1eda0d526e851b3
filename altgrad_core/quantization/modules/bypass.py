"""Computing with what a quantised model stands for: latent weights, nothing rounded or recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from altgrad_core.quantization.modules.linear import QuantizedModule, quantizers_of


@contextmanager
def unrounded(model: nn.Module) -> Iterator[None]:
    """Within the context, quantised layers use their parameters and inputs as they are."""
    modules = [module for module in model.modules() if isinstance(module, QuantizedModule)]
    before = [module.bypassed for module in modules]
    for module in modules:
        module.bypassed = True
    try:
        yield
    finally:
        for module, bypassed in zip(modules, before, strict=True):
            module.bypassed = bypassed


@contextmanager
def unrecorded(model: nn.Module) -> Iterator[None]:
    """Within the context, passes leave no trace: no amax enters a history, no scale is renewed."""
    quantizers = quantizers_of(model)
    before = [quantizer.recording for quantizer in quantizers]
    for quantizer in quantizers:
        quantizer.recording = False
    try:
        yield
    finally:
        for quantizer, recording in zip(quantizers, before, strict=True):
            quantizer.recording = recording

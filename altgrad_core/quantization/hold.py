"""``hold_weights``: each weight is rounded once per step, not once per use; an input once, not once per layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from altgrad_core.quantization.modules.linear import quantizers_of
from altgrad_core.quantization.modules.quantizer import Hold
from altgrad_core.quantization.modules.shared_input import SharedInput


@contextmanager
def hold_weights(model: nn.Module) -> Iterator[None]:
    """Within the context, round each weight of ``model`` on its first use and reuse the result.

    For the micro-batches of one step, or the batches of one evaluation. Every use has a graph
    node of its own, so several backward passes add up as they should. In delayed mode the
    forwards inside count as one step of the history. Leave the context before weights change:
    in-place updates (any optimizer's) and new tensors behind ``.data`` are noticed and lead to a
    new rounding, operations in place on ``.data`` are not. An input that several layers are called
    with in a row, as those of query, key and value are, is rounded once where they round alike, to
    nearest and with scales that remember nothing. Outside of the context every forward
    rounds anew. Contexts may be nested; the inner one starts afresh.
    """
    quantizers = quantizers_of(model)
    outer = [quantizer.hold for quantizer in quantizers]
    inputs = SharedInput()
    for quantizer in quantizers:
        quantizer.hold = Hold(inputs=inputs)
    try:
        yield
    finally:
        inputs.clear()
        for quantizer, hold in zip(quantizers, outer, strict=True):
            quantizer.hold = hold

"""What ``save_pretrained`` of transformers leaves out: the buffers of scaling and residency.

``from_pretrained`` builds the plain model, which has no place for them. A weight that lives on a grid
is saved as the grid values that it has, and finds a scale for them when it is quantised again.
"""

from __future__ import annotations

from torch import nn

from altgrad_core.quantization.modules.linear import QuantizedModule

_IGNORED = "_keys_to_ignore_on_save"
"""What transformers looks at."""
_SAVED = f"{_IGNORED}_before_quantization"


def leave_out_own_buffers(model: nn.Module) -> None:
    """Let every part of ``model`` that has a ``save_pretrained`` leave our buffers out."""
    for module in model.modules():
        if not hasattr(module, _IGNORED):
            continue
        own = {
            f"{name}.{buffer}" if name else buffer
            for name, layer in module.named_modules()
            if isinstance(layer, QuantizedModule)
            for quantizer in layer.quantizers()
            for buffer in quantizer.buffers()
        }
        if own:
            before = getattr(module, _IGNORED)
            module.__dict__[_SAVED] = before, _IGNORED in module.__dict__
            module.__dict__[_IGNORED] = {*(before or ()), *own}


def save_as_before(model: nn.Module) -> None:
    """Undo :func:`leave_out_own_buffers`."""
    for module in model.modules():
        if _SAVED in module.__dict__:
            before, was_own = module.__dict__.pop(_SAVED)
            del module.__dict__[_IGNORED]
            if was_own:
                module.__dict__[_IGNORED] = before

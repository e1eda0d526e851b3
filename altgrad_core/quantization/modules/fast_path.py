"""Keeps ``nn.TransformerEncoder`` and its layers off PyTorch's fused inference path.

In eval mode without gradients, ``nn.TransformerEncoderLayer`` hands the weights of its layers
straight to one fused kernel, which would use them unrounded: training and evaluation would see
different models. Each of the two switches below is an attribute that PyTorch itself looks at for
nothing else.
"""

from __future__ import annotations

from torch import nn

from altgrad_core.quantization.modules.linear import QuantizedModule

_SWITCHES: tuple[tuple[type[nn.Module], str, object], ...] = (
    (nn.TransformerEncoderLayer, "activation_relu_or_gelu", 0),
    (nn.TransformerEncoder, "use_nested_tensor", False),
)
_SAVED = "_fast_path_before_quantization"


def leave_fast_path(model: nn.Module) -> None:
    """Switch the fused path off in every encoder (layer) that contains a quantised layer."""
    for module in model.modules():
        for kind, name, off in _SWITCHES:
            affected = isinstance(module, kind) and any(
                isinstance(child, QuantizedModule) for child in module.modules()
            )
            if affected and hasattr(module, name):
                module.__dict__[_SAVED] = getattr(module, name)
                setattr(module, name, off)


def return_to_fast_path(model: nn.Module) -> None:
    """Undo :func:`leave_fast_path`."""
    for module in model.modules():
        for kind, name, _ in _SWITCHES:
            if isinstance(module, kind) and _SAVED in module.__dict__:
                setattr(module, name, module.__dict__.pop(_SAVED))

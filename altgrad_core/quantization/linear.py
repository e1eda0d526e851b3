"""``QuantizedLinear``: an ``nn.Linear`` that rounds its weight and, if asked, its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.fake_quant import quantized_linear
from altgrad_core.quantization.quantizer import TensorQuantizer, WeightQuantizer
from altgrad_core.quantization.settings import ScalingSettings

M = TypeVar("M", bound="QuantizedModule")


class QuantizedModule(nn.Module):
    """A module with parameters that are rounded when used. The parameters stay as they were."""

    weight_quantizers: dict[str, WeightQuantizer]
    """By name of the parameter within the module."""
    input_quantizer: TensorQuantizer | None
    original_class: type[nn.Module]
    """What the module was, and becomes again by ``dequantize_model``."""

    def quantizers(self) -> Iterator[TensorQuantizer]:
        """Every quantizer of this module."""
        yield from self.weight_quantizers.values()
        if self.input_quantizer is not None:
            yield self.input_quantizer

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> nn.Module:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for quantizer in self.weight_quantizers.values():
            quantizer.forget()
        return self

    def describe(self) -> str:
        """Formats and scaling, for ``extra_repr``."""
        parts = [f"{name}={q.format.name}" for name, q in self.weight_quantizers.items()]
        if self.input_quantizer is not None:
            parts.append(f"input={self.input_quantizer.format.name}")
        parts += [f"scaling={q.scaler}" for q in list(self.weight_quantizers.values())[:1]]
        return ", ".join(parts)


class QuantizedLinear(QuantizedModule, nn.Linear):
    """``y = Q(x) Q(W)ᵀ + b`` with straight-through gradients.

    Made from an ``nn.Linear`` by ``quantize_model``, in place: parameters, hooks, device, dtype and
    training flag stay. ``W`` has one scale; the bias is never rounded. Without an activation format
    the input is used as it is.

    Under autocast, the rounded weight is cast to the autocast dtype. For a power-of-two scale and
    a grid of up to 8 significant bits that is exact in bfloat16; other scales are applied to the
    product.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Shapes as for ``nn.Linear``: ``(..., in_features)`` to ``(..., out_features)``."""
        dtype = product_dtype(self.weight)
        weight = self.weight_quantizers["weight"].rounded(self, dtype)
        rounded_input = None
        if self.input_quantizer is not None:
            rounded_input = self.input_quantizer.round(self, input, dtype)
        return quantized_linear(input, self.weight, self.bias, rounded_input, weight)

    def extra_repr(self) -> str:
        """What ``nn.Linear`` says, with formats and scaling."""
        return f"{nn.Linear.extra_repr(self)}, {self.describe()}"


def product_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of a product with ``weight``: autocast's, where it is on and applies."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def convert_linear(
    linear: nn.Linear,
    weight_format: Format,
    activation_format: Format | None,
    scaling: ScalingSettings,
) -> QuantizedLinear:
    """Turn ``linear`` into a :class:`QuantizedLinear`, in place, and return it."""
    quantizer = WeightQuantizer("weight", weight_format, scaling)
    inputs = None
    if activation_format is not None:
        inputs = TensorQuantizer(activation_format, scaling, "input_amax_history")
    return install(linear, QuantizedLinear, {"weight": quantizer}, inputs)


def install(
    module: nn.Module,
    target: type[M],
    weights: dict[str, WeightQuantizer],
    inputs: TensorQuantizer | None,
) -> M:
    """Make ``module`` a ``target``. The object stays, so every reference to it holds."""
    original = type(module)
    module.__class__ = target
    assert isinstance(module, target)
    module.original_class = original
    module.weight_quantizers = weights
    module.input_quantizer = inputs
    device = next(module.parameters()).device
    for quantizer in module.quantizers():
        quantizer.scaler.attach(module, device)
    return module


def uninstall(module: QuantizedModule) -> None:
    """Make ``module`` what it was before :func:`install`."""
    for quantizer in module.quantizers():
        quantizer.scaler.detach(module)
    module.__class__ = module.original_class  # type: ignore[assignment]
    for name in ("original_class", "weight_quantizers", "input_quantizer"):
        del module.__dict__[name]

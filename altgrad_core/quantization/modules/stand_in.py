"""Layers of any type on a grid: rounded weights stand in for the parameters while ``forward`` runs.

An instance attribute is found before a registered parameter of the same name. So whatever code reads
``self.weight`` computes with the rounded one, and the layer's own ``forward`` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.quantization.modules.fake_quant import (
    Rounded,
    quantized_linear,
    round_gradient,
    straight_through,
)
from altgrad_core.quantization.modules.linear import (
    QuantizedModule,
    product_dtype,
    rounded_gradient,
)


class QuantizedLayer(QuantizedModule):
    """Mixed into the class of a layer: rounds its weights and, if asked, its input and gradient.

    The input is the first argument of ``forward``, and the gradient that of its result; what is not
    a floating-point tensor is left alone.
    """

    mixin: ClassVar[bool] = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Arguments and results as for the layer itself."""
        if self.bypassed:
            return super().forward(*args, **kwargs)
        if self.input_quantizer is not None and args and _is_real(args[0]):
            args = (self._rounded_input(args[0]), *args[1:])
        with rounded_weights(self):
            output = super().forward(*args, **kwargs)
        if self.gradient_quantizer is None or not _is_real(output):
            return output
        return round_gradient(output, partial(rounded_gradient, self, self.gradient_quantizer))

    def _rounded_input(self, x: Tensor) -> Tensor:
        assert self.input_quantizer is not None
        rounded = self.input_quantizer.round(self, x, x.dtype)
        return straight_through(x, whole(rounded))

    def extra_repr(self) -> str:
        """What the layer says, with formats and scaling."""
        return ", ".join(filter(None, (super().extra_repr(), self.describe())))

    def __repr__(self) -> str:
        return nn.Module.__repr__(self)  # a layer with a repr of its own would not say what it is


class QuantizedTransposedLinear(QuantizedLayer):
    """Mixed into a linear layer whose weight is stored ``(in_features, out_features)``.

    ``y = Q(x) Q(W) + b``: computed as :class:`~.linear.QuantizedLinear` does, exact scales included.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Shapes: ``(..., in_features)`` to ``(..., out_features)``."""
        if self.bypassed:
            plain: Tensor = super(QuantizedLayer, self).forward(input)
            return plain
        quantizer = self.weight_quantizers["weight"]
        latent = quantizer.value(self)
        dtype = product_dtype(latent)
        weight = quantizer.rounded(self, dtype, latent)
        weight = Rounded(weight.values.T, weight.epilogue, weight.scale)
        x = None
        if self.input_quantizer is not None:
            x = self.input_quantizer.round(self, input, dtype)
        output = quantized_linear(input, latent.T, self._parameters["bias"], x, weight)
        if self.gradient_quantizer is None:
            return output
        return round_gradient(output, partial(rounded_gradient, self, self.gradient_quantizer))

    def extra_repr(self) -> str:
        """Features, formats and scaling."""
        rows, columns = self.weight_quantizers["weight"].value(self).shape
        return f"in_features={rows}, out_features={columns}, {self.describe()}"


def whole(rounded: Rounded) -> Tensor:
    """The values with what was left for the epilogue, rounded once more to their dtype."""
    if rounded.epilogue is None:
        return rounded.values
    return (rounded.values.float() * rounded.epilogue).to(rounded.values.dtype)


@contextmanager
def rounded_weights(module: QuantizedModule, *, autocast: bool = False) -> Iterator[None]:
    """Let attribute access on ``module`` find rounded weights in place of its parameters.

    autocast:
        whether they come in the dtype of the products that autocast computes, for a function that
        knows nothing of autocast; otherwise they keep that of the parameters.
    """
    quantizers = {} if module.bypassed else module.weight_quantizers
    shadowed = {}  # what pruning and the old weight norm have put there
    try:
        for name, quantizer in quantizers.items():
            _refuse_property(module, name)
            weight = quantizer.value(module)
            dtype = product_dtype(weight) if autocast else weight.dtype
            values = whole(quantizer.rounded(module, dtype, weight))
            if name in module.__dict__:
                shadowed[name] = module.__dict__[name]
            module.__dict__[name] = straight_through(weight, values)
        yield
    finally:
        for name in quantizers:
            module.__dict__.pop(name, None)
        module.__dict__.update(shadowed)


def _is_real(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _refuse_property(module: QuantizedModule, name: str) -> None:
    if hasattr(type(module), name):
        raise UserError(
            f"{name!r} of a {module.original_class.__name__} has a parametrization, behind which "
            f"the layer would not see its rounded value. Remove it (remove_parametrizations), or "
            f"quantise the model after it, which leaves the layer alone."
        )

"""Linear layers whose products are native: codes of the input times codes of the weight, forward and backward.

With ``w = s_w · ŵ``, ``x = s_x · x̂`` and, where gradients have a format, ``g = s_g · ĝ``:

    y = s_x s_w · (x̂ ŵᵀ) + b        ∂L/∂x = s_g s_w · (ĝ ŵ)        ∂L/∂w = s_g s_x · (ĝᵀ x̂)

Gradients pass straight through the rounding, as in the simulation, of which only the sums are others. Without
a format of gradients, the products of the backward pass are those of the simulation. Codes are what is kept
for the backward pass: a byte for each element of the input.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from altgrad_core.quantization.modules.fake_quant import Rounded, with_signature
from altgrad_core.quantization.modules.linear import QuantizedLinear, QuantizedModule, product_dtype
from altgrad_core.quantization.modules.stand_in import QuantizedTransposedLinear
from altgrad_core.quantization.native.codes import CODES, Codes, simulated
from altgrad_core.quantization.native.products import product

Encoder = Callable[[Tensor], Rounded]


class NativeLinear(QuantizedLinear):
    """An ``nn.Linear`` as :class:`QuantizedLinear` computes it, by native products."""

    def forward(self, input: Tensor) -> Tensor:
        """Shapes as for ``nn.Linear``: ``(..., in_features)`` to ``(..., out_features)``."""
        if self.bypassed:
            return nn.functional.linear(input, self.weight, self.bias)
        return _forward(self, input, self.bias, transposed=False)


class NativeTransposedLinear(QuantizedTransposedLinear):
    """A linear layer whose weight is stored ``(in_features, out_features)``, by native products."""

    def forward(self, input: Tensor) -> Tensor:
        """Shapes: ``(..., in_features)`` to ``(..., out_features)``."""
        if self.bypassed:
            return super().forward(input)
        return _forward(self, input, self._parameters["bias"], transposed=True)


def _forward(
    module: QuantizedModule, input: Tensor, bias: Tensor | None, *, transposed: bool
) -> Tensor:
    quantizer, inputs = module.weight_quantizers["weight"], module.input_quantizer
    assert inputs is not None
    latent = quantizer.value(module)  # once: a parametrization computes it at every access
    weight = quantizer.rounded(module, quantizer.codes, latent)
    x = inputs.round(module, input, inputs.codes)
    gradients, encode = module.gradient_quantizer, None
    if gradients is not None:
        encode = partial(gradients.round, module, dtype=gradients.codes)
    result: Tensor = _NativeLinear.apply(  # type: ignore[no-untyped-call]
        input,
        latent.T if transposed else latent,
        bias,
        x.values,
        x.epilogue,
        weight.values.T if transposed else weight.values,
        weight.epilogue,
        encode,
        product_dtype(latent),
    )
    return result


class _NativeLinear(torch.autograd.Function):
    """``y = x wᵀ + b`` of codes; ``x`` and ``w`` themselves take part as what gradients go to."""

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        x_codes: Tensor,
        x_scale: Tensor | None,
        w_codes: Tensor,
        w_scale: Tensor | None,
        encode: Encoder | None,
        dtype: torch.dtype,
    ) -> Tensor:
        found = product(_rows(x_codes, x_scale), Codes(w_codes.t(), w_scale), dtype, bias)
        return found.view(*x_codes.shape[:-1], w_codes.shape[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, x_codes, x_scale, w_codes, w_scale, ctx.encode, ctx.dtype = inputs
        ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
        ctx.save_for_backward(x_codes, x_scale, w_codes, w_scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_codes, x_scale, w_codes, w_scale = ctx.saved_tensors
        x, weight = _rows(x_codes, x_scale), Codes(w_codes, w_scale)
        multiply: Callable[[Codes, Codes, torch.dtype], Tensor] = product
        if ctx.encode is None:
            gradient, multiply = _rows(grads[0], None), _simulated
            x, weight = simulated(x, ctx.dtype), simulated(weight, ctx.dtype)
        else:
            rounded = ctx.encode(grads[0])
            gradient = _rows(rounded.values, rounded.epilogue)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = multiply(gradient, weight, ctx.dtypes[0]).view(x_codes.shape)
        if ctx.needs_input_grad[1]:
            of_weight = multiply(gradient.t(), x, ctx.dtypes[1])
        if ctx.needs_input_grad[2]:
            summed = gradient.values.sum(0) if ctx.encode is None else _summed(gradient)
            of_bias = summed.to(ctx.dtypes[2])
        return of_x, of_weight, of_bias, *(None,) * 6


def _rows(values: Tensor, epilogue: Tensor | None) -> Codes:
    """All dimensions but the last as one."""
    return Codes(values.flatten(0, -2) if values.dim() > 1 else values[None], epilogue)


def _simulated(left: Codes, right: Codes, dtype: torch.dtype) -> Tensor:
    """As the simulation multiplies: in the dtype of the right values, of which something may be left for later."""
    found = torch.mm(left.values.to(right.values.dtype), right.values)
    return (found if right.epilogue is None else found.float() * right.epilogue).to(dtype)


def _summed(gradient: Codes) -> Tensor:
    """The sum of all rows, in float32."""
    values, epilogue = gradient
    if values.dtype in CODES and values.is_floating_point():
        values = values.bfloat16()  # which has all values of float8, and sums
    found = values.sum(0, dtype=torch.float32)
    return found if epilogue is None else found * epilogue

"""Straight-through fake quantisation: forward sees the rounding, backward does not.

Rounding has derivative zero almost everywhere, so the gradient is passed on as if it were the
identity (the straight-through estimator; Bengio, Léonard and Courville 2013). It is passed on for
*saturated* elements too. Clipping it there would be right for an activation, which a layer below
may bring back; but a weight that lies beyond the grid (possible in delayed mode only) would then
get no gradient at all, and nothing but weight decay could bring it back. With scales that follow
amax nothing saturates, and the two estimators are the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.scaling import expanded, power_of_two_part
from altgrad_core.quantization.settings import ScalingSettings

LOW_PRECISION = (torch.bfloat16, torch.float16)
_F = TypeVar("_F", bound=Callable[..., Tensor])


def with_signature(forward: _F) -> _F:
    """``forward`` of an autograd function with its signature, which torch else works out anew at every call."""
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    return forward


@dataclass(frozen=True)
class Rounded:
    """A tensor on its grid, ready for a product: it stands for ``values * epilogue``.

    ``epilogue`` is None where ``values`` already contain the scale. A scale that is not a power
    of two would have to be rounded together with the grid values to fit 16 bits, so there only its
    power of two is part of the values (which float16 needs: products of pure grid values leave its
    range). The rest, in [1, 2), is left for the epilogue, if it has one element for the tensor or
    for each row: the product is multiplied by it afterwards. ``scale`` is compact, and whole.
    """

    values: Tensor
    epilogue: Tensor | None
    scale: Tensor


def round_to_grid(
    x: Tensor,
    fmt: Format,
    scale: Tensor,
    dtype: torch.dtype,
    *,
    scaling: ScalingSettings,
    axis: int | None = None,
    rounding: Rounding = "nearest",
    generator: torch.Generator | None = None,
    keep_inf: bool = False,
) -> Rounded:
    """``scale · fmt.round(x / scale)``: values in ``dtype``, and what the epilogue has to do.

    ``scale`` is compact. An exact scale per block has no place in an epilogue, and is rounded with
    the values where ``dtype`` is a 16-bit one. What is inf stays so if ``keep_inf``, and in a format
    that is not scaled; else its scale is inf, and shows it.
    """
    with torch.no_grad():
        if not fmt.scaled:
            values = fmt.round_scaled(x, None, dtype, rounding, generator, keep_inf=True)
            return Rounded(values, None, scale)
        wide = expanded(scale, x, scaling, axis)
        late = not scaling.power_of_two and scaling.granularity != "block"
        if not (late and dtype in LOW_PRECISION):
            values = fmt.round_scaled(x, wide, dtype, rounding, generator, keep_inf=keep_inf)
            return Rounded(values, None, scale)
        # float16 and bfloat16 would round the quotient, and the grid would round it a second time.
        work = x.detach().float() if x.dtype in LOW_PRECISION else x.detach()
        power = power_of_two_part(scale)
        values = fmt.round(work / wide, rounding, generator) * power
        values = torch.where(work.isinf(), work, values) if keep_inf else values
        return Rounded(values.to(dtype), scale / power, scale)


class _StraightThrough(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(x: Tensor, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.dtype = output.dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _StraightThroughBothWays(_StraightThrough):
    """With a derivative in forward mode, too."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0].to(ctx.dtype)


_Function = type[torch.autograd.Function]


def _function(backward: _Function, both_ways: _Function) -> _Function:
    """The one with a derivative in forward mode as well, but for torch.compile, which traces no such function."""
    return backward if torch.compiler.is_compiling() else both_ways


def straight_through(x: Tensor, values: Tensor) -> Tensor:
    """``values`` in the forward pass, and the gradient of the result as the gradient of ``x``.

    ``values`` has the shape of ``x`` but may have another dtype. It may be used for any number of
    forward and backward passes: each gets a graph node of its own.
    """
    function = _function(_StraightThrough, _StraightThroughBothWays)
    result: Tensor = function.apply(x, values)  # type: ignore[no-untyped-call]
    return result


def fake_quantize(x: Tensor, fmt: Format, scale: Tensor | float = 1.0) -> Tensor:
    """``scale · fmt.round(x / scale)`` with the gradient passed straight through; like ``x``."""
    factor = torch.as_tensor(scale, dtype=torch.float32, device=x.device)
    rounded = round_to_grid(x, fmt, factor, torch.float32, scaling=ScalingSettings())
    return straight_through(x, rounded.values.to(x.dtype))


class _EpilogueLinear(torch.autograd.Function):
    """``y = (x̂ ŵᵀ) · s``: a product of 16-bit values whose scales are applied afterwards.

    Scales are 0-d, or per row: of the input ``(..., 1)``, of the weight ``(out, 1)``. In the
    backward pass, a scale per row lies along the dimension that is summed over, and is therefore
    applied to the gradient before the product. ``x_values`` and ``w_values`` come from
    :func:`straight_through`, so that second derivatives find their way to ``x`` and ``weight``.
    """

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(
        x: Tensor,
        weight: Tensor,
        x_values: Tensor,
        w_values: Tensor,
        x_scale: Tensor | None,
        w_scale: Tensor | None,
    ) -> Tensor:
        return _times(_times(F.linear(x_values, w_values).float(), x_scale), _flat(w_scale))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[2:])
        ctx.save_for_forward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_values, w_values, x_scale, w_scale = ctx.saved_tensors
        dtype = w_values.dtype
        grad_x = grad_w = None
        if ctx.needs_input_grad[0]:
            early, late = _split(_flat(w_scale))
            grad_x = _times((_times(grads[0], early).to(dtype) @ w_values).float(), late)
        if ctx.needs_input_grad[1]:
            early, late = _split(x_scale)
            grad = _times(grads[0], early).to(dtype)
            rows = grad.flatten(0, -2) if grad.dim() > 1 else grad[None]
            inputs = x_values.flatten(0, -2) if x_values.dim() > 1 else x_values[None]
            grad_w = _times((rows.mT @ inputs).float(), late)
        return grad_x, grad_w, None, None, None, None


class _EpilogueLinearBothWays(_EpilogueLinear):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        x_values, w_values, x_scale, w_scale = ctx.saved_tensors
        dtype = w_values.dtype
        of_x = _times(F.linear(tangents[0].to(dtype), w_values).float(), _flat(w_scale))
        return of_x + _times(F.linear(x_values, tangents[1].to(dtype)).float(), x_scale)


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _flat(w_scale: Tensor | None) -> Tensor | None:
    """The scale of each output channel, ``(out, 1)``, as the product's last dimension has it."""
    return w_scale.flatten() if w_scale is not None and w_scale.dim() else w_scale


def _split(scale: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """What is applied before the product (a scale per row) and after it (one for the tensor)."""
    per_row = scale is not None and scale.dim() > 0
    return (scale, None) if per_row else (None, scale)


class _RoundGradient(torch.autograd.Function):
    """The identity, whose gradient is rounded by ``rounder`` on its way back."""

    generate_vmap_rule = True

    @staticmethod
    @with_signature
    def forward(y: Tensor, rounder: Callable[[Tensor], Tensor]) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rounder = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return straight_through(grads[0], ctx.rounder(grads[0])), None


class _RoundGradientBothWays(_RoundGradient):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0].view_as(tangents[0])  # there is no gradient on its way forward


def round_gradient(y: Tensor, rounder: Callable[[Tensor], Tensor]) -> Tensor:
    """``y``, with ``rounder`` applied to the gradient that arrives at it."""
    function = _function(_RoundGradient, _RoundGradientBothWays)
    result: Tensor = function.apply(y, rounder)  # type: ignore[no-untyped-call]
    return result


def quantized_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, x_rounded: Rounded | None, w_rounded: Rounded
) -> Tensor:
    """``F.linear`` of input and rounded weight, with straight-through gradients.

    x_rounded:
        the input on its grid; None takes ``x`` as it is.

    Scales that are left for the epilogue are applied to the product in float32, and the bias after
    them; the result is then rounded to the dtype of the product, once more.
    """
    dtype = w_rounded.values.dtype
    x_epilogue = None if x_rounded is None else x_rounded.epilogue
    if x_epilogue is None and w_rounded.epilogue is None:
        inputs = x if x_rounded is None else straight_through(x, x_rounded.values)
        return F.linear(inputs, straight_through(weight, w_rounded.values), bias)
    values = x.to(dtype) if x_rounded is None else straight_through(x, x_rounded.values)
    function = _function(_EpilogueLinear, _EpilogueLinearBothWays)
    product: Tensor = function.apply(  # type: ignore[no-untyped-call]
        x,
        weight,
        values,
        straight_through(weight, w_rounded.values),
        x_epilogue,
        w_rounded.epilogue,
    )
    return (product if bias is None else product + bias).to(dtype)

"""``QuantizedLinear``: an ``nn.Linear`` that rounds its weight and, if asked, its input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, SupportsIndex

import torch
from torch import Tensor, nn

from altgrad_core.quantization.modules.fake_quant import quantized_linear, round_gradient
from altgrad_core.quantization.modules.quantizer import TensorQuantizer
from altgrad_core.quantization.modules.roles import Roles
from altgrad_core.quantization.modules.weight_quantizer import WeightQuantizer
from altgrad_core.quantization.resident.kept import is_kept, needs_keeping
from altgrad_core.quantization.resident.weight import Resident, check_dtype

_OWN = (
    *("original_class", "quantized_class", "bypassed"),
    *("weight_quantizers", "input_quantizer", "gradient_quantizer"),
)
"""Attributes that a quantised module has beside those of its original class."""


class QuantizedModule(nn.Module):
    """A module with parameters that are rounded when used. The parameters stay as they were."""

    weight_quantizers: dict[str, WeightQuantizer]
    """By name of the parameter within the module."""
    input_quantizer: TensorQuantizer | None
    gradient_quantizer: TensorQuantizer | None
    bypassed: bool
    """True while the module computes with its latent parameters, rounding nothing."""
    original_class: type[nn.Module]
    """What the module was, and becomes again by ``dequantize_model``."""
    quantized_class: type[nn.Module]
    """What it is while it is quantised, unless something else has exchanged its class since."""
    mixin: ClassVar[bool] = False
    """Whether the class is to be mixed into that of the layer, whose ``forward`` it calls."""

    def quantizers(self) -> Iterator[TensorQuantizer]:
        """Every quantizer of this module."""
        yield from self.weight_quantizers.values()
        for quantizer in (self.input_quantizer, self.gradient_quantizer):
            if quantizer is not None:
                yield quantizer

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> nn.Module:
        """Scales, histories and packed errors move to another device, but keep their dtype.

        Raises ``UserError`` for a dtype that cannot hold what lives on a grid. The layer is then as it
        was; those before it are converted, as torch has no way back.
        """
        self._begin()
        for name, resident in self._residents():
            weight = self._parameters.get(name)
            if weight is not None:
                after = fn(weight.detach().new_empty(0))
                formats = resident.format, resident.compensation
                check_dtype(f"A {type(self).__name__}", after, *formats)
        before = self._own_buffers()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in self._own_buffers().items():
            if buffer.dtype != before[name].dtype:
                self._buffers[name] = before[name].to(buffer.device)
        for quantizer in self.weight_quantizers.values():
            quantizer.moved(self)
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        *args: Any,
    ) -> None:
        """As of any module; what was saved in another dtype is taken up in the right one.

        Weights of a plain model may come without our buffers. Histories then start anew, and the
        scale of a resident weight is found as for anything that is written into it.
        """
        self._begin()
        before = self._own_buffers()
        metadata = local_metadata, strict, missing_keys
        super()._load_from_state_dict(state_dict, prefix, *metadata, *args)
        for name, buffer in self._own_buffers().items():
            self._buffers[name] = buffer.to(before[name].dtype)
        given = {key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)}
        if given.issuperset(self.weight_quantizers) and given.isdisjoint(before):
            mine = {prefix + name for name in before}
            missing_keys[:] = [key for key in missing_keys if key not in mine]
            for quantizer in self.quantizers():
                quantizer.forget(self)
        for _, resident in self._residents():
            resident.loaded(self, given)

    def _save_to_state_dict(self, *args: Any) -> None:
        self._begin()
        super()._save_to_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        self._begin()
        state = self.__dict__.copy()
        del state["quantized_class"]  # made classes cannot be pickled by name
        return state

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        kind = type(self)
        if not kind.mixin or kind.__bases__[1:] != (self.original_class,):
            return super().__reduce_ex__(protocol)
        return _blank, (kind.__bases__[0], self.original_class), self.__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.quantized_class = type(self)
        for _, resident in self._residents():
            resident.mark(self)
            needs_keeping([self])

    def _residents(self) -> list[tuple[str, Resident]]:
        """What lives on a grid, by name of the parameter."""
        found = ((name, q.resident) for name, q in self.weight_quantizers.items())
        return [(name, resident) for name, resident in found if resident is not None]

    def _begin(self) -> None:
        """See to weights that something else has written, while it still can be told."""
        for _, resident in self._residents():
            resident.begin(self)

    def _own_buffers(self) -> dict[str, Tensor]:
        """What scaling and residency remember."""
        names = (name for quantizer in self.quantizers() for name in quantizer.buffers())
        found = {name: self._buffers.get(name) for name in names}
        return {name: buffer for name, buffer in found.items() if buffer is not None}

    def describe(self) -> str:
        """Formats and scaling, for ``extra_repr``."""
        parts = [f"{name}={q.format.name}" for name, q in self.weight_quantizers.items()]
        if self.input_quantizer is not None:
            parts.append(f"input={self.input_quantizer.format.name}")
        if self.gradient_quantizer is not None:
            parts.append(f"gradient={self.gradient_quantizer.format.name}")
        for quantizer in list(self.weight_quantizers.values())[:1]:
            parts.append(f"scaling={quantizer.scaler}")
            if quantizer.resident is not None:
                parts.append(f"residency={quantizer.resident}")
            elif quantizer.rounding != "nearest":
                parts.append(f"rounding={quantizer.rounding}")
            if quantizer.native:
                parts.append("execution=native")
        return ", ".join(parts)


def quantizers_of(model: nn.Module) -> list[TensorQuantizer]:
    """Every quantizer of a model, in model order."""
    modules = (module for module in model.modules() if isinstance(module, QuantizedModule))
    return [quantizer for module in modules for quantizer in module.quantizers()]


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
        if self.bypassed:
            return nn.functional.linear(input, self.weight, self.bias)
        quantizer = self.weight_quantizers["weight"]
        latent = quantizer.value(self)  # once: a parametrization computes it at every access
        dtype = product_dtype(latent)
        weight = quantizer.rounded(self, dtype, latent)
        rounded_input = None
        if self.input_quantizer is not None:
            rounded_input = self.input_quantizer.round(self, input, dtype)
        output = quantized_linear(input, latent, self.bias, rounded_input, weight)
        if self.gradient_quantizer is None:
            return output
        return round_gradient(output, partial(rounded_gradient, self, self.gradient_quantizer))

    def extra_repr(self) -> str:
        """What ``nn.Linear`` says, with formats and scaling."""
        return f"{nn.Linear.extra_repr(self)}, {self.describe()}"


def product_dtype(weight: Tensor) -> torch.dtype:
    """The dtype of a product with ``weight``: autocast's, where it is on and applies."""
    device = weight.device.type
    if not torch.amp.is_autocast_available(device) or weight.dtype == torch.float64:
        return weight.dtype  # the former e.g. on "meta", where shapes are found without values
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def rounded_gradient(module: nn.Module, quantizer: TensorQuantizer, gradient: Tensor) -> Tensor:
    """The gradient at the output of ``module`` on its grid, in its own dtype."""
    rounded = quantizer.round(module, gradient, gradient.dtype)
    if rounded.epilogue is None:
        return rounded.values
    return (rounded.values.float() * rounded.epilogue).to(gradient.dtype)


def install(
    module: nn.Module,
    layer: type[QuantizedModule],
    weights: dict[str, WeightQuantizer],
    roles: Roles,
    *,
    inputs: bool = False,
) -> None:
    """Make ``module`` a ``layer``. The object stays, so every reference to it holds.

    inputs:
        whether its forward is called with what is to be rounded as input.
    """
    original = type(module)
    module.__class__ = mixed(layer, original) if layer.mixin else layer
    assert isinstance(module, QuantizedModule)
    module.original_class = original
    module.quantized_class = type(module)
    module.bypassed = False
    module.weight_quantizers = weights
    module.input_quantizer = module.gradient_quantizer = None
    if inputs and roles.activation is not None:
        module.input_quantizer = TensorQuantizer(roles.activation, "input")
    if inputs and roles.gradient is not None:
        module.gradient_quantizer = TensorQuantizer(roles.gradient, "gradient", backward=True)
    for weight in weights.values():
        weight.attach(module)
    device = next(module.parameters()).device
    for quantizer in (module.input_quantizer, module.gradient_quantizer):
        if quantizer is not None:
            quantizer.scaler.attach(module, torch.zeros((), dtype=torch.float32, device=device))
    for each in module.quantizers():
        each.generator = roles.generator


_MIXED: dict[tuple[type, type], type[QuantizedModule]] = {}


def mixed(layer: type[QuantizedModule], original: type[nn.Module]) -> type[QuantizedModule]:
    """The class of an ``original`` that is quantised as ``layer`` does; always the same one."""
    key = layer, original
    if key not in _MIXED:
        attributes = {"__module__": layer.__module__, "__doc__": layer.__doc__}
        _MIXED[key] = type(f"Quantized{original.__name__}", key, attributes)
    return _MIXED[key]


def _blank(layer: type[QuantizedModule], original: type[nn.Module]) -> QuantizedModule:
    """What a copied or unpickled module starts from: a class that was made cannot be found by name."""
    made = mixed(layer, original)
    return made.__new__(made)


def uninstall(module: QuantizedModule) -> None:
    """Make ``module`` what it was before :func:`install`."""
    is_kept([module])
    for weight in module.weight_quantizers.values():
        weight.detach(module)
    for quantizer in (module.input_quantizer, module.gradient_quantizer):
        if quantizer is not None:
            quantizer.scaler.detach(module)
    module.__class__ = module.original_class  # type: ignore[assignment]
    for name in _OWN:
        del module.__dict__[name]

"""Which types of modules can be quantised: a table with an adapter for each, open to anyone.

Types are known by their full name, so a type of a package that is not installed, or not yet
imported, has its place like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.quantization.modules.attention import QuantizedMultiheadAttention
from altgrad_core.quantization.modules.linear import QuantizedLinear, QuantizedModule
from altgrad_core.quantization.modules.stand_in import QuantizedLayer, QuantizedTransposedLinear
from altgrad_core.quantization.native.linear import NativeLinear, NativeTransposedLinear


@dataclass(frozen=True)
class Adapter:
    """How modules of one type are quantised.

    weights:
        name of each parameter that is rounded -> the dimension of its output channels, along which
        scales per channel and per block go.
    inputs:
        whether the first argument of ``forward``, and its result, are what the weights are
        multiplied with and give; those are rounded where the user asks for it.
    layer:
        what computes with the rounded weights.
    exact:
        whether exact scales are applied after the product, also in half precision.
    native:
        what computes with codes, by native products; None where there is nothing that does.
    """

    weights: Mapping[str, int]
    inputs: bool = True
    layer: type[QuantizedModule] = QuantizedLayer
    exact: bool = False
    native: type[QuantizedModule] | None = None

    def parameters(self, module: nn.Module) -> dict[str, nn.Parameter]:
        """The parameters of ``module`` that are rounded, by name; without those that it does without."""
        found = ((name, module._parameters.get(name)) for name in self.weights)
        return {name: parameter for name, parameter in found if parameter is not None}


_LINEAR = Adapter({"weight": 0}, layer=QuantizedLinear, exact=True, native=NativeLinear)
_CONVOLUTION = Adapter({"weight": 0})
_TRANSPOSED_CONVOLUTION = Adapter({"weight": 1})
_ATTENTION = Adapter(
    dict.fromkeys(("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"), 0),
    inputs=False,
    layer=QuantizedMultiheadAttention,
)
_ADAPTERS = {
    "torch.nn.modules.linear.Linear": _LINEAR,
    "torch.nn.modules.linear.NonDynamicallyQuantizableLinear": _LINEAR,  # attention's out_proj
    "torch.nn.modules.activation.MultiheadAttention": _ATTENTION,
    **{f"torch.nn.modules.conv.Conv{n}d": _CONVOLUTION for n in (1, 2, 3)},
    **{f"torch.nn.modules.conv.ConvTranspose{n}d": _TRANSPOSED_CONVOLUTION for n in (1, 2, 3)},
    "transformers.pytorch_utils.Conv1D": Adapter(
        {"weight": 1},
        layer=QuantizedTransposedLinear,
        exact=True,
        native=NativeTransposedLinear,
    ),
}


def register_adapter(
    kind: type[nn.Module] | str, weights: Mapping[str, int] | None = None, *, inputs: bool = True
) -> None:
    """Let ``quantize_model`` quantise modules of a type that it does not know.

    kind:
        the class, or its full name (``"package.module.Class"``), which imports nothing. A subclass
        is a type of its own.
    weights:
        name of each parameter to round -> the dimension of its output channels, along which scales
        per channel and per block go; by default ``{"weight": 0}``, as of ``nn.Linear``.
    inputs:
        whether the first argument of ``forward`` may be rounded to an ``activation_format``, and
        the gradient of its result to a ``gradient_format``.

    While ``forward`` runs, ``self.weight`` (or what the parameters are called) is the rounded
    weight, with the gradient passed straight through; everything else is the module's own.

    Raises ``UserError`` if the type has another adapter already.
    """
    adapter = Adapter(dict(weights or {"weight": 0}), inputs)
    name = kind if isinstance(kind, str) else _full_name(kind)
    if _ADAPTERS.setdefault(name, adapter) != adapter:
        raise UserError(
            f"{name} has an adapter already, another than this one. One type has one adapter: "
            f"derive a class of your own from it, and register that."
        )


def adapter_of(module: nn.Module) -> Adapter | None:
    """The adapter for exactly the type of ``module``; None if there is none."""
    return _ADAPTERS.get(_full_name(type(module)))


def quantisable() -> list[str]:
    """Names of the types that have an adapter, without their modules."""
    return [name.rpartition(".")[2] for name in _ADAPTERS]


def _full_name(kind: type[nn.Module]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"

"""Whether the layers that are to be converted have native products, here: refused before the first one changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.adapters import adapter_of
from altgrad_core.quantization.conversion.candidates import Candidate
from altgrad_core.quantization.modules.linear import QuantizedModule
from altgrad_core.quantization.modules.roles import Roles
from altgrad_core.quantization.native.pairs import Operand, Operands
from altgrad_core.quantization.native.products import check_products


def refuse_not_native(model: nn.Module, chosen: Mapping[Candidate, Format], roles: Roles) -> None:
    """Raise ``UserError`` for a format, layer or device without a native product, if those are asked for."""
    if not roles.weight.native:
        return
    named = {"scaling": roles.weight, "activation_scaling": roles.activation}
    named |= {"gradient_scaling": roles.gradient}
    coarse = {key: role.scaling.granularity for key, role in named.items() if role is not None}
    operands = _operands(chosen.values(), roles.activation, roles.gradient)
    _refuse(operands, coarse)
    readers: dict[nn.Module, nn.Module] = {
        m.out_proj: m for m in model.modules() if isinstance(m, nn.MultiheadAttention)
    }
    for candidate in chosen:
        module = readers.get(candidate.module, candidate.module)
        adapter = adapter_of(module)
        if adapter is None or adapter.native is None:
            raise UserError(
                f"execution: native: the layer {candidate.name or '(root)'!r} is computed by "
                f"{type(module).__name__}, whose products are simulated only. Leave it alone (an override "
                f"with format null), or use execution: simulated."
            )
    for device in {p.device for c in chosen for p in c.module.parameters(recurse=False)}:
        check_products(device, operands.multipliers())


def check_pairs(module: QuantizedModule, fmt: Format) -> None:
    """Raise ``UserError`` if the products of ``module`` are native and would not be with weights of ``fmt``."""
    if any(quantizer.native for quantizer in module.weight_quantizers.values()):
        _refuse(_operands([fmt], module.input_quantizer, module.gradient_quantizer), {})


class _HasFormat(Protocol):
    @property
    def format(self) -> Format: ...


def _operands(
    weights: Iterable[Format], inputs: _HasFormat | None, gradients: _HasFormat | None
) -> Operands:
    def operand(fmt: Format) -> Operand:
        return Operand(fmt.name, fmt.native)

    return Operands(
        tuple(map(operand, dict.fromkeys(weights))),
        None if inputs is None else operand(inputs.format),
        None if gradients is None else operand(gradients.format),
    )


def _refuse(operands: Operands, granularities: Mapping[str, str]) -> None:
    if found := list(operands.faults(granularities)):
        raise UserError("; ".join(found))

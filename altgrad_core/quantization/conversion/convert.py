"""Carries out what was decided about the layers of a model: which becomes what, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.adapters import Adapter, adapter_of
from altgrad_core.quantization.conversion.candidates import Candidate
from altgrad_core.quantization.conversion.native import refuse_not_native
from altgrad_core.quantization.conversion.notes import check_shared, notes_on, weights_of
from altgrad_core.quantization.conversion.undo import undone_on_error
from altgrad_core.quantization.modules.fast_path import leave_fast_path
from altgrad_core.quantization.modules.linear import install
from altgrad_core.quantization.modules.pretrained import leave_out_own_buffers
from altgrad_core.quantization.modules.roles import Roles, WeightRole
from altgrad_core.quantization.modules.weight_quantizer import WeightQuantizer
from altgrad_core.quantization.report import QuantizationReport
from altgrad_core.quantization.resident.kept import needs_keeping
from altgrad_core.quantization.resident.weight import check_dtype


def convert(
    model: nn.Module, decisions: Mapping[Candidate, tuple[Format | None, str]], roles: Roles
) -> QuantizationReport:
    """Check every decision before the first layer changes, then convert.

    decisions:
        the format of each candidate, or None, and why.

    Raises ``UserError``, and then the model is unchanged.
    """
    chosen = {c: fmt for c, (fmt, _) in decisions.items() if fmt is not None}
    for candidate in chosen:
        if candidate.lazy:
            raise UserError(
                f"The layer {candidate.name!r} is a {type(candidate.module).__name__} whose weight "
                f"has no shape yet. Run one batch through the model first, then quantise it."
            )
        for weight in weights_of(candidate.module):
            check_weight_dtype(candidate.name or "(root)", weight, chosen[candidate], roles.weight)
    refuse_not_native(model, chosen, roles)
    formats = {candidate.module: fmt for candidate, fmt in chosen.items()}
    resident = roles.weight.residency == "grid"
    check_shared(model, formats, resident=resident)
    notes = notes_on(model, formats, roles)
    moved = [weight for module in formats for weight in weights_of(module)] if resident else []
    with undone_on_error([*formats, *_attentions(model)], moved):
        _install(model, formats, roles)
    if resident:
        needs_keeping(formats)
    leave_fast_path(model)
    leave_out_own_buffers(model)
    return QuantizationReport(
        layers={candidate.name: fmt.name for candidate, fmt in chosen.items()},
        skipped={c.name: reason for c, (fmt, reason) in decisions.items() if fmt is None},
        activation_format=None if roles.activation is None else roles.activation.format.name,
        gradient_format=None if roles.gradient is None else roles.gradient.format.name,
        notes=notes,
    )


def check_weight_dtype(name: str, weight: Tensor, fmt: Format, role: WeightRole) -> None:
    """Refuse a weight that is to live on a grid which its dtype cannot hold."""
    if role.residency == "master":
        return  # it is rounded in float32, and only the result is cast
    check_dtype(name, weight, fmt, role.compensation)


def _attentions(model: nn.Module) -> list[nn.MultiheadAttention]:
    return [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]


def _install(model: nn.Module, formats: dict[nn.Module, Format], roles: Roles) -> None:
    attentions = _attentions(model)
    inside_attention = {attention.out_proj for attention in attentions}
    adapters = {module: adapter for module in model.modules() if (adapter := adapter_of(module))}
    for module, adapter in adapters.items():
        fmt = formats.get(module)
        if fmt is not None:
            weights = _quantizers(module, adapter, fmt, roles)
            # Attention computes the input of its out_proj itself, where no quantizer would see it.
            inputs = adapter.inputs and module not in inside_attention
            layer = adapter.native if roles.weight.native else adapter.layer
            assert layer is not None  # refused before
            install(module, layer, weights, roles, inputs=inputs)
    for attention in attentions:
        if attention not in formats and attention.out_proj in formats:  # for the sake of out_proj
            install(attention, adapters[attention].layer, {}, roles)


def _quantizers(
    module: nn.Module, adapter: Adapter, fmt: Format, roles: Roles
) -> dict[str, WeightQuantizer]:
    """What rounds each weight; rows along the last dimension of a matrix need no axis."""
    found = {}
    for name, parameter in adapter.parameters(module).items():
        axis = adapter.weights[name] % parameter.dim()
        plain = axis == 0 and parameter.dim() == 2
        found[name] = WeightQuantizer(name, fmt, roles.weight, None if plain else axis)
    return found

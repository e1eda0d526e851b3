"""What a careful reader of a quantised model wants to know: shared weights, inputs out of reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.adapters import adapter_of
from altgrad_core.quantization.modules.roles import Roles

Chosen = Mapping[nn.Module, Format]


def weights_of(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of ``module`` that quantising it rounds."""
    adapter = adapter_of(module)
    return [] if adapter is None else list(adapter.parameters(module).values())


def check_shared(model: nn.Module, chosen: Chosen, *, resident: bool = False) -> None:
    """Raise ``UserError`` if two layers would put the weight that they share on two grids.

    Resident weights have one scale, which two layers cannot both own.
    """
    formats: dict[nn.Parameter, tuple[nn.Module, Format]] = {}
    for module, format in chosen.items():
        for weight in weights_of(module):
            first, other = formats.setdefault(weight, (module, format))
            if other is not format and other.name != format.name:
                raise UserError(
                    f"{_name(model, first)!r} and {_name(model, module)!r} share one weight, so "
                    f"they cannot put it on two grids, {other.name} and {format.name}. Give both "
                    f"the same format, or leave one of them alone."
                )
            if resident and first is not module:
                raise UserError(
                    f"{_name(model, first)!r} and {_name(model, module)!r} share one weight, which "
                    f"cannot live on the grid of both. Leave one of them alone, or use residency: "
                    f"master."
                )


def notes_on(model: nn.Module, chosen: Chosen, roles: Roles) -> tuple[str, ...]:
    """The notes of a report, for the modules that are about to be quantised."""
    return (
        *_shared_notes(model, chosen),
        *_attention_notes(model, chosen, roles),
        *_inexact_notes(model, chosen, roles),
        *_block_notes(roles),
    )


def _shared_notes(model: nn.Module, chosen: Chosen) -> Iterator[str]:
    rounded = {weight for module in chosen for weight in weights_of(module)}
    users: dict[nn.Parameter, list[tuple[str, bool]]] = {weight: [] for weight in rounded}
    for module_name, module in model.named_modules():
        for weight in module._parameters.values():
            if weight in rounded:
                users[weight].append((module_name, module in chosen))
    for name, parameter in model.named_parameters():
        sharers = users.get(parameter, [])
        if len(sharers) > 1:
            who = ", ".join(f"{m} ({'rounded' if r else 'not rounded'})" for m, r in sharers)
            yield f"{name} is one weight that several modules use: {who}"


def _block_notes(roles: Roles) -> Iterator[str]:
    named = {"weights": roles.weight, "inputs": roles.activation, "gradients": roles.gradient}
    for what, role in named.items():
        scaling = None if role is None else role.scaling
        if scaling and scaling.granularity == "block" and not scaling.power_of_two:
            yield (
                f"under autocast, {what} are rounded once more: an exact scale per block has no "
                f"place after the product"
            )


def _attention_notes(model: nn.Module, chosen: Chosen, roles: Roles) -> Iterator[str]:
    for name, module in model.named_modules():
        if not isinstance(module, nn.MultiheadAttention):
            continue
        formats = [chosen[m] for m in (module, module.out_proj) if m in chosen]
        for what, role in (("inputs", roles.activation), ("gradients", roles.gradient)):
            if formats and role is not None:
                yield (
                    f"the {what} of {name or '(root)'} are not quantised: nn.MultiheadAttention "
                    f"computes its projections inside one function"
                )


def _inexact_notes(model: nn.Module, chosen: Chosen, roles: Roles) -> Iterator[str]:
    if roles.weight.scaling.power_of_two:
        return
    for name, module in model.named_modules():
        formats = [chosen[module]] if module in chosen else []
        if isinstance(module, nn.MultiheadAttention) and module.out_proj in chosen:
            formats.append(chosen[module.out_proj])
        adapter = adapter_of(module)
        if adapter and not adapter.exact and any(f.scaled for f in formats):
            yield (
                f"under autocast, scaled weights of {name or '(root)'} are rounded once more: an "
                f"exact scale cannot be applied after the product inside {type(module).__name__}"
            )


def _name(model: nn.Module, wanted: nn.Module) -> str:
    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
    return names[wanted]

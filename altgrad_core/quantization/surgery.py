"""``quantize_model``: put the linear layers of any model on a grid, in place, and take them off.

Layers change their class, not their identity: the same module objects with the same Parameter
objects, names, hooks, device and dtype. So optimizers built before still work, a root module that
is itself a Linear needs no wrapper, and a module that is registered twice is quantised once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.attention import convert_attention
from altgrad_core.quantization.candidates import Candidate, find_candidates
from altgrad_core.quantization.fast_path import leave_fast_path, return_to_fast_path
from altgrad_core.quantization.linear import QuantizedModule, convert_linear, uninstall
from altgrad_core.quantization.notes import check_shared, notes_on
from altgrad_core.quantization.report import QuantizationReport as QuantizationReport
from altgrad_core.quantization.rules import Filter, Rule, check_head, check_patterns, decide
from altgrad_core.quantization.settings import (
    FormatChoice,
    QuantizationSettings,
    ScalingSettings,
)


def quantize_model(
    model: nn.Module,
    format: Format,
    *,
    filter: Filter | None = None,
    overrides: Sequence[tuple[str, Format | None]] = (),
    activation_format: Format | None = None,
    scaling: ScalingSettings | None = None,
) -> QuantizationReport:
    """Quantise the weights of the linear layers of ``model``, in place.

    format:
        the format of the weights.
    filter:
        ``(module, qualified name) -> bool``: which ``nn.Linear`` and ``nn.MultiheadAttention``
        modules (the latter for their input projections); None takes all.
    overrides:
        ``(pattern, format or None)``: another format, or none, for layers whose name, or the name
        of a module around them, matches (``fnmatch``, case-sensitive). The last match wins, over
        the filter too.
    activation_format:
        the format of the inputs of the quantised ``nn.Linear`` layers; None leaves them alone.
    scaling:
        where scales come from; by default amax of the step, rounded up to a power of two.

    Raises:
        UserError: the model is quantised already, a pattern matches no layer, a layer is lazy, or
        two
            layers that share a weight would put it on two grids. The model is then unchanged.
    """
    _refuse_quantized(model)
    candidates = find_candidates(model)
    rules = [Rule(pattern, fmt, f"override {pattern!r}") for pattern, fmt in overrides]
    check_patterns(rules, candidates)
    decisions = {c: decide(c, Rule("*", format), rules, filter) for c in candidates}
    return _carry_out(model, decisions, activation_format, scaling or ScalingSettings())


def quantize_from_settings(
    model: nn.Module,
    settings: QuantizationSettings,
    head: tuple[str, ...],
    load_format: Callable[[FormatChoice], Format],
) -> QuantizationReport:
    """Quantise ``model`` as the ``quantization`` section of a suite says.

    head:
        ``fnmatch`` patterns of the modules that are the classifier head. ``quantize_classifier``
        decides about the layers in them, ``quantize_encoder`` about all others; overrides come
        after both.
    load_format:
        builds a format; called once per distinct choice.

    Raises:
        UserError: as :func:`quantize_model`, and if a head pattern matches no module.
    """
    _refuse_quantized(model)
    check_head(model, head)
    formats: dict[str, Format] = {}

    def load(choice: FormatChoice | None) -> Format | None:
        if choice is None:
            return None
        key = choice.model_dump_json()
        if key not in formats:
            formats[key] = load_format(choice)
        return formats[key]

    format = load(settings.format)
    encoder = Rule("*", format if settings.quantize_encoder else None, "quantize_encoder: false")
    classifier = format if settings.quantize_classifier else None
    heads = [Rule(p, classifier, "classifier head, quantize_classifier: false") for p in head]
    overrides = [
        Rule(o.pattern, load(o.format), f"override {o.pattern!r}: null") for o in settings.overrides
    ]
    candidates = find_candidates(model)
    check_patterns(overrides, candidates)
    decisions = {c: decide(c, encoder, [*heads, *overrides], None) for c in candidates}
    return _carry_out(model, decisions, load(settings.activation_format), settings.scaling)


def dequantize_model(model: nn.Module) -> None:
    """Make every quantised layer of ``model`` a plain layer again, in place.

    The parameters keep their latent values; round them first if the rounded ones are wanted. A
    model without quantised layers is left as it is.
    """
    return_to_fast_path(model)
    for module in list(model.modules()):
        if isinstance(module, QuantizedModule):
            uninstall(module)


def _refuse_quantized(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, QuantizedModule):
            raise UserError(
                f"The model is quantised already: {name or 'its root'} is a "
                f"{type(module).__name__}. Call dequantize_model(model) first, or give all formats "
                f"in one call, as overrides."
            )


def _carry_out(
    model: nn.Module,
    decisions: dict[Candidate, tuple[Format | None, str]],
    activation_format: Format | None,
    scaling: ScalingSettings,
) -> QuantizationReport:
    """Check every decision before the first layer changes, then convert."""
    chosen = {c: fmt for c, (fmt, _) in decisions.items() if fmt is not None}
    for candidate in chosen:
        if candidate.lazy:
            raise UserError(
                f"The layer {candidate.name!r} is a {type(candidate.module).__name__} whose weight "
                f"has no shape yet. Run one batch through the model first, then quantise it."
            )
    formats = {candidate.module: fmt for candidate, fmt in chosen.items()}
    check_shared(model, formats)
    notes = notes_on(model, formats, activation_format, scaling)
    _convert(model, formats, activation_format, scaling)
    leave_fast_path(model)
    return QuantizationReport(
        layers={candidate.name: fmt.name for candidate, fmt in chosen.items()},
        skipped={c.name: reason for c, (fmt, reason) in decisions.items() if fmt is None},
        activation_format=None if activation_format is None else activation_format.name,
        notes=notes,
    )


def _convert(
    model: nn.Module,
    formats: dict[nn.Module, Format],
    activation_format: Format | None,
    scaling: ScalingSettings,
) -> None:
    attentions = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    inside_attention = {attention.out_proj for attention in attentions}
    for module, fmt in formats.items():
        if isinstance(module, nn.Linear):
            # Attention computes the input of its out_proj itself, where no quantizer would see it.
            inputs = None if module in inside_attention else activation_format
            convert_linear(module, fmt, inputs, scaling)
    for attention in attentions:
        if attention in formats or attention.out_proj in formats:
            convert_attention(attention, formats.get(attention), scaling)

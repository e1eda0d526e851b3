"""``quantize_from_settings``: what the ``quantization`` section of a suite makes of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType

import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.conversion.candidates import Candidate, find_candidates
from altgrad_core.quantization.conversion.convert import convert
from altgrad_core.quantization.conversion.presets import Groups, group_rules
from altgrad_core.quantization.conversion.rules import (
    Rule,
    check_any,
    check_head,
    check_patterns,
    decide,
)
from altgrad_core.quantization.conversion.sharded import refuse_sharded
from altgrad_core.quantization.modules.roles import Roles, TensorRole, WeightRole
from altgrad_core.quantization.report import QuantizationReport
from altgrad_core.quantization.settings import FormatChoice, QuantizationSettings
from altgrad_core.quantization.surgery import refuse_quantized


def quantize_from_settings(
    model: nn.Module,
    settings: QuantizationSettings,
    head: tuple[str, ...],
    load_format: Callable[[FormatChoice], Format],
    generator: torch.Generator | None = None,
    groups: Groups = MappingProxyType({}),
) -> QuantizationReport:
    """Quantise ``model`` as the ``quantization`` section of a suite says.

    head:
        ``fnmatch`` patterns of the modules that are the model's head. ``quantize_classifier``
        decides about the layers in them, ``quantize_encoder`` about all others; overrides come
        after both.
    load_format:
        builds a format; called once per distinct choice.
    generator:
        what stochastic rounding in the forward and backward pass draws from.
    groups:
        name -> patterns of the groups of layers among which the setting ``layers`` picks.

    Raises:
        UserError: as :func:`~altgrad_core.quantization.surgery.quantize_model`, for a group that is not there, and if a
            head pattern matches no module, or, with ``quantize_classifier``, none that can be quantised.
    """
    refuse_quantized(model)
    refuse_sharded(model, resident=False)
    check_head(model, head)
    formats: dict[str, Format] = {}

    def load(choice: FormatChoice | None) -> Format | None:
        if choice is None:
            return None
        key = choice.model_dump_json()
        if key not in formats:
            formats[key] = load_format(choice)
        return formats[key]

    def native(choice: FormatChoice) -> str:
        built = load(choice)
        return built.native if built is not None else ""

    if contradictions := settings.contradictions(native):
        raise UserError("; ".join(contradictions))
    candidates = find_candidates(model)
    decisions = _decisions(settings, head, groups, candidates, load)
    return convert(model, decisions, _roles(settings, load, generator))


def _decisions(
    settings: QuantizationSettings,
    head: tuple[str, ...],
    groups: Groups,
    candidates: Sequence[Candidate],
    load: Callable[[FormatChoice | None], Format | None],
) -> dict[Candidate, tuple[Format | None, str]]:
    """What becomes of each layer. Raises ``UserError`` for a pattern or a group that finds none."""
    format = load(settings.format)
    body = [Rule("*", format if settings.quantize_encoder else None, "quantize_encoder: false")]
    if settings.group:
        rest = load(settings.rest_format)
        body = group_rules(settings.group, groups, candidates, format, rest)
    both = settings.quantize_classifier or settings.layers == "body_and_head"
    classifier = format if both else None
    heads = [Rule(p, classifier, "head, quantize_classifier: false") for p in head]
    overrides = [
        Rule(o.pattern, load(o.format), f"override {o.pattern!r}: null") for o in settings.overrides
    ]
    check_patterns(overrides, candidates)
    if settings.quantize_encoder:
        check_any(candidates)
    if classifier is not None:
        held = [rule for rule in heads if any(rule.matches(c.names) for c in candidates)]
        check_patterns(held or heads, candidates, "pattern of the head")
    base, *rules = [*body, *heads, *overrides]
    return {c: decide(c, base, rules, None) for c in candidates}


def _roles(
    settings: QuantizationSettings,
    load: Callable[[FormatChoice | None], Format | None],
    generator: torch.Generator | None,
) -> Roles:
    shared = settings.scaling.model_copy(update={"granularity": "tensor"})
    activation, gradient = load(settings.activation_format), load(settings.gradient_format)
    kahan, native = settings.compensation == "kahan", settings.execution == "native"
    return Roles(
        weight=WeightRole(
            settings.residency,
            settings.rounding,
            settings.scaling,
            load(settings.compensation_format) if kahan else None,
            native,
        ),
        activation=None
        if activation is None
        else TensorRole(activation, settings.activation_scaling or shared, native=native),
        gradient=None
        if gradient is None
        else TensorRole(
            gradient, settings.gradient_scaling or shared, settings.gradient_rounding, native
        ),
        generator=generator,
    )

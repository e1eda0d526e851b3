"""``quantize_model``: put the layers of any model on a grid, in place, and take them off.

Layers change their class, not their identity: the same module objects with the same Parameter
objects, names, hooks, device and dtype. So optimizers built before still work, a root module that
is itself a Linear needs no wrapper, and a module that is registered twice is quantised once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.conversion.candidates import find_candidates
from altgrad_core.quantization.conversion.convert import check_weight_dtype, convert
from altgrad_core.quantization.conversion.native import check_pairs
from altgrad_core.quantization.conversion.rules import (
    Filter,
    Rule,
    check_any,
    check_filter,
    check_patterns,
    decide,
)
from altgrad_core.quantization.conversion.sharded import refuse_sharded
from altgrad_core.quantization.conversion.undo import undone_on_error
from altgrad_core.quantization.geometry import ParameterGeometry
from altgrad_core.quantization.modules.fast_path import return_to_fast_path
from altgrad_core.quantization.modules.linear import QuantizedModule, uninstall
from altgrad_core.quantization.modules.pretrained import save_as_before
from altgrad_core.quantization.modules.roles import Roles, TensorRole, WeightRole
from altgrad_core.quantization.modules.weight_quantizer import WeightQuantizer
from altgrad_core.quantization.report import QuantizationReport as QuantizationReport
from altgrad_core.quantization.residency import release
from altgrad_core.quantization.settings import (
    Execution,
    QuantizationSettings,
    Residency,
    ScalingSettings,
    check_words,
)


def quantize_model(
    model: nn.Module,
    format: Format,
    *,
    filter: Filter | None = None,
    overrides: Sequence[tuple[str, Format | None]] = (),
    activation_format: Format | None = None,
    gradient_format: Format | None = None,
    scaling: ScalingSettings | None = None,
    residency: Residency = "master",
    rounding: Rounding = "nearest",
    compensation: Format | None = None,
    generator: torch.Generator | None = None,
    execution: Execution = "simulated",
) -> QuantizationReport:
    """Quantise the weights of the layers of ``model``, in place.

    Of linear layers, convolutions and attention, and of each type that
    :func:`~altgrad_core.quantization.adapters.register_adapter` was told of.

    format:
        the format of the weights.
    filter:
        ``(module, qualified name) -> bool``: which layers (``nn.MultiheadAttention`` for its input
        projections); None takes all that can be quantised.
    overrides:
        ``(pattern, format or None)``: another format, or none, for layers whose name, or the name
        of a module around them, matches (``fnmatch``, case-sensitive). The last match wins, over
        the filter too.
    activation_format:
        the format of the inputs of the quantised layers; None leaves them alone.
    gradient_format:
        the format of the gradients at their outputs; None leaves them alone.
    scaling:
        where scales come from; by default amax of the step, rounded up to a power of two.
    residency:
        ``master``: parameters stay float32 masters. ``grid``: they move onto the grid now, and
        :func:`~altgrad_core.quantization.residency.keep_on_grid` keeps them there.
    rounding:
        of the update (grid), or of the weight in training forwards (master); ``stochastic``
        draws from ``generator``, which a master needs here and a resident weight does not.
    compensation:
        the format of the Kahan buffer of resident weights; None keeps none.
    execution:
        ``native``: products of 8-bit codes where hardware has them, see :mod:`altgrad_core.quantization.native`.

    Raises:
        UserError: a word is unknown, the settings contradict each other, the model is quantised already, a pattern or
            the filter matches no layer that can be quantised, no layer can be, a layer is lazy, layers that share a
            weight would put it on two grids, a weight would have to live on a grid that its dtype
            cannot hold, or a format, layer or device has no native product. After any error the model is unchanged.
    """
    check_words(residency=residency, rounding=rounding, execution=execution)
    if (residency, rounding, generator) == ("master", "stochastic", None):
        raise UserError(
            "rounding='stochastic' of a master draws from an explicit generator, so that runs can be "
            "repeated: pass generator=torch.Generator(device).manual_seed(0)."
        )
    scaling = scaling or ScalingSettings()
    shared = scaling.model_copy(update={"granularity": "tensor"})
    native = execution == "native"
    inputs, gradients = (
        None if fmt is None else TensorRole(fmt, shared, native=native)
        for fmt in (activation_format, gradient_format)
    )
    roles = Roles(
        WeightRole(residency, rounding, scaling, compensation, native),
        *(inputs, gradients, generator),
    )
    _refuse_contradictions(roles)
    refuse_quantized(model)
    refuse_sharded(model, resident=False)
    candidates = find_candidates(model)
    check_any(candidates)
    rules = [Rule(pattern, fmt, f"override {pattern!r}") for pattern, fmt in overrides]
    check_patterns(rules, candidates)
    decisions = {c: decide(c, Rule("*", format), rules, filter) for c in candidates}
    check_filter(filter, decisions)
    return convert(model, decisions, roles)


def dequantize_model(model: nn.Module) -> None:
    """Make every quantised layer of ``model`` a plain layer again, in place.

    The parameters keep their latent values; round them first if the rounded ones are wanted. A
    model without quantised layers is left as it is.

    Raises ``UserError``, before anything changes, for a layer that was parametrized since.
    """
    quantized = {n: m for n, m in model.named_modules() if isinstance(m, QuantizedModule)}
    for name, module in quantized.items():
        if parametrize.is_parametrized(module):  # by a class of its own, which would be lost
            raise UserError(
                f"The layer {name!r} has a parametrization that came after its quantisation. Call "
                f"torch.nn.utils.parametrize.remove_parametrizations on it first."
            )
        if type(module) is not module.quantized_class:
            raise UserError(
                f"The layer {name!r} has become a {type(module).__name__} since its quantisation "
                f"(fully_shard exchanges classes), which dequantize_model would undo. Save its "
                f"state, build a model anew, and load it there."
            )
    return_to_fast_path(model)
    save_as_before(model)
    for module in quantized.values():
        release(module)
        uninstall(module)


def change_format(geometry: ParameterGeometry, fmt: Format) -> None:
    """Move one quantised weight to another format, in place; its role and parameter stay.

    A master keeps its value and is rounded to the new grid from the next forward on. A resident
    weight moves onto the new grid now, to nearest, at a scale of its own; what compensation holds goes
    along. Amax histories start anew.

    Raises ``UserError`` for a weight that several layers round, whose dtype cannot hold the values
    of ``fmt``, or whose layer has native products and would have none. After any error the weight is as it was.
    """
    module, old = geometry.module, geometry.quantizer
    if geometry.shared:
        raise UserError(
            f"{geometry.name} is rounded by several layers, which cannot move to another format one "
            "by one."
        )
    check_weight_dtype(geometry.name, geometry.parameter, fmt, old.role)
    check_pairs(module, fmt)
    with undone_on_error([module], [geometry.parameter] if geometry.resident else []):
        if old.resident is not None:
            old.resident.restore(module)
        old.detach(module)
        new = WeightQuantizer(geometry.attribute, fmt, old.role, old.scaler.axis)
        new.generator, new.hold = old.generator, None
        if new.resident is not None and old.resident is not None:
            new.resident.keepers = old.resident.keepers
        module.weight_quantizers[geometry.attribute] = new
        new.attach(module)


def refuse_quantized(model: nn.Module) -> None:
    """Raise ``UserError`` where a layer is quantised."""
    for name, module in model.named_modules():
        if isinstance(module, QuantizedModule):
            raise UserError(
                f"The model is quantised already: {name or 'its root'} is a "
                f"{type(module).__name__}. Call dequantize_model(model) first, or give all formats "
                f"in one call, as overrides."
            )


def _refuse_contradictions(roles: Roles) -> None:
    weight = roles.weight
    settings = QuantizationSettings(
        residency=weight.residency,
        scaling=weight.scaling,
        compensation="none" if weight.compensation is None else "kahan",
    )
    if contradictions := settings.contradictions(lambda choice: ""):
        raise UserError("; ".join(contradictions))

"""What quantises one tensor of a module: its format, its scale, and what is held for the step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.fake_quant import Rounded, round_to_grid
from altgrad_core.quantization.repetition import (
    Origin,
    PassLog,
    recomputing,
    repeatable,
    transformed,
)
from altgrad_core.quantization.resident import Resident, mark_of, parameter_of
from altgrad_core.quantization.roles import TensorRole, WeightRole
from altgrad_core.quantization.scaling import Scaler, expanded


@dataclass(frozen=True)
class Held:
    """A rounding, and for which tensor in which state it is valid."""

    tensor: Tensor
    state: tuple[object, ...]
    origin: Origin
    rounded: Rounded


@dataclass
class Hold:
    """What a quantizer keeps under ``hold_weights``. Keys say for what a rounding is valid."""

    rounded: dict[tuple[object, ...], Held] = field(default_factory=dict)
    recorded: bool = False
    past: Tensor | None = None
    """What delayed scales of this step go by, once there was a forward: the steps before it."""


class TensorQuantizer:
    """Rounds a tensor that belongs to ``module``, which is passed with every call.

    A plain object, not a module: a quantised layer stays a leaf of its model, with the same
    state-dict keys (plus what scaling and residency must remember). It keeps no reference to the
    module, so that ``copy.deepcopy`` and moving to another device need no care.

    backward:
        whether the tensor is a gradient, which is met in backward passes and never recomputed.
    """

    def __init__(self, role: TensorRole, tensor: str, *, backward: bool = False) -> None:
        self.format = role.format
        self.rounding: Rounding = role.rounding
        self.scaler = Scaler(role.format, role.scaling, tensor)
        self.hold: Hold | None = None
        self.generator: torch.Generator | None = None
        """What stochastic rounding draws from."""
        self.recording = True
        """False while a pass is repeated for measurement: scales then remember nothing of it."""
        self._backward = backward
        self._passes = PassLog()
        self._past: Tensor | None = None
        """What the last recorded forward went by: a repetition of it must see the same."""

    def buffers(self) -> tuple[str, ...]:
        """Names of the buffers that the module has for this tensor."""
        return self.scaler.buffers()

    def scale_of(self, module: nn.Module, x: Tensor) -> Tensor:
        """The scale for ``x``, broadcasting against it; nothing is recorded.

        In training mode, of an ``x`` that was rounded in this step: the scale that it was rounded
        with, though delayed scales have moved on since.
        """
        past = self._last_past(x) if module.training else None
        compact = self.scaler.scale(module, x, past=past)
        return expanded(compact, x, self.scaler.settings)

    def round(self, module: nn.Module, x: Tensor, dtype: torch.dtype) -> Rounded:
        """``x`` on its grid, as values in ``dtype``. Records amax if the module is training.

        Stochastic rounding is for training: in eval mode values go to the nearest. What is
        recomputed for a backward pass is rounded as it was in its forward pass, and not recorded
        again; under a transform of ``torch.func`` nothing is recorded.
        """
        repeated = self._repeated(module)
        if repeated is not None:
            return self._round_again(module, x, dtype, repeated)
        return self._round_anew(module, x, dtype)[0]

    def _repeated(self, module: nn.Module) -> Origin | None:
        """What this forward must go by, if it is a recomputation; None if it is not."""
        if not (module.training and self.recording) or self._backward or not recomputing():
            return None
        if self.scaler.delayed or self.rounding == "stochastic":
            return self._passes.repeated() or Origin()
        return None  # depends on nothing but the tensor

    def _round_again(
        self, module: nn.Module, x: Tensor, dtype: torch.dtype, origin: Origin
    ) -> Rounded:
        """Round ``x`` as in the forward of that origin."""
        self._note(module, origin)
        generator = self.generator
        if origin.draws is not None and generator is not None:
            generator = torch.Generator(generator.device)
            generator.set_state(origin.draws)
        return self._round(module, x, dtype, origin, generator)

    def _round_anew(
        self, module: nn.Module, x: Tensor, dtype: torch.dtype
    ) -> tuple[Rounded, Origin]:
        """Round ``x`` in a forward of its own, and say what that forward goes by."""
        record = module.training and self.recording and not transformed()
        origin = Origin()
        if record:
            origin = self._start(module)
        elif not self.recording:
            origin.past = self._last_past(x)
        same_step = self.hold is not None and self.hold.recorded
        rounded = self._round(
            module, x, dtype, origin, self.generator, record=record, same_step=same_step
        )
        if record and self.hold is not None:
            self.hold.recorded = True
        return rounded, origin

    def _start(self, module: nn.Module) -> Origin:
        """A training forward begins: what it goes by."""
        hold = self.hold
        past = hold.past if hold is not None and hold.recorded else self.scaler.past(module)
        if hold is not None:
            hold.past = past
        self._past = past
        origin = Origin(past)
        if not self._backward and (hold is not None or repeatable()):
            if self.rounding == "stochastic" and self.generator is not None:
                origin.draws = self.generator.get_state()
            self._note(module, origin)
        return origin

    def _note(self, module: nn.Module, origin: Origin) -> None:
        """Remember what this forward goes by, if it depends on that and may be repeated."""
        if (origin.past is not None or origin.draws is not None) and repeatable():
            weights = (p for p in module._parameters.values() if p is not None)
            self._passes.note(origin, tuple(_state_of(p) for p in weights))

    def _last_past(self, x: Tensor) -> Tensor | None:
        past = self._past
        return past if past is not None and past.device == x.device else None

    def _round(
        self,
        module: nn.Module,
        x: Tensor,
        dtype: torch.dtype,
        origin: Origin,
        generator: torch.Generator | None,
        *,
        record: bool = False,
        same_step: bool = False,
    ) -> Rounded:
        with torch.no_grad():
            scale = self.scaler.scale(
                module, x, record=record, same_step=same_step, past=origin.past
            )
        return round_to_grid(
            x,
            self.format,
            scale,
            dtype,
            scaling=self.scaler.settings,
            rounding=self.rounding if module.training else "nearest",
            generator=generator,
        )


class WeightQuantizer(TensorQuantizer):
    """Rounds the parameter called ``parameter``, once per use or, under ``hold_weights``, once."""

    def __init__(self, parameter: str, fmt: Format, role: WeightRole) -> None:
        grid = role.residency == "grid"
        # A resident weight is rounded where it lives; in the forward that is its own grid value.
        rounding: Rounding = "nearest" if grid else role.rounding
        super().__init__(TensorRole(fmt, role.scaling, rounding), parameter)
        self.parameter = parameter
        self.role = role
        self.resident = Resident(parameter, fmt, role) if grid else None
        self._last: tuple[Tensor, Tensor] | None = None
        """What the last forward rounded, and at which scale."""

    def attach(self, module: nn.Module) -> None:
        """Give ``module`` the buffers it needs; a resident weight moves onto its grid."""
        if self.resident is not None:
            self.resident.move_in(module)
        else:
            self.scaler.attach(module, self.weight(module))

    def detach(self, module: nn.Module) -> None:
        """Take the buffers away again. The weight stays where it is."""
        if self.resident is not None:
            self.resident.move_out(module)
        else:
            self.scaler.detach(module)

    def buffers(self) -> tuple[str, ...]:
        """See :class:`TensorQuantizer`."""
        return super().buffers() if self.resident is None else self.resident.buffers()

    def weight(self, module: nn.Module) -> nn.Parameter:
        """The parameter itself, also while attention shows a rounded tensor in its place.

        Raises ``UserError`` if a computed tensor has taken its place since: see :meth:`value`.
        """
        return parameter_of(module, self.parameter)

    def value(self, module: nn.Module) -> Tensor:
        """What a forward rounds: the parameter, or, of a master, the tensor computed in its place.

        Pruning, weight norm and parametrizations compute one anew for every forward, or access.
        """
        weight: Tensor | None = module._parameters.get(self.parameter)
        if weight is None and self.resident is None:
            weight = getattr(module, self.parameter, None)
        return self.weight(module) if weight is None else weight

    def _round_anew(
        self, module: nn.Module, x: Tensor, dtype: torch.dtype
    ) -> tuple[Rounded, Origin]:
        if self.resident is not None:
            return self._grid(module, x, dtype), Origin()
        return super()._round_anew(module, x, dtype)

    def rounded(
        self, module: nn.Module, dtype: torch.dtype, weight: Tensor | None = None
    ) -> Rounded:
        """The weight on its grid. ``weight`` is :meth:`value`, if the caller has it already.

        A held rounding is used again only for the tensor, dtype and mode that it was made for, and
        only if neither an in-place operation has changed the tensor since nor a new one stands
        behind ``.data``; operations in place on ``.data`` cannot be seen.
        """
        weight = self.value(module) if weight is None else weight
        if transformed():  # its tensors must not outlive the transform
            return self.round(module, weight, dtype)
        repeated = self._repeated(module)
        held = self._held(module, dtype, weight)
        if repeated is not None:
            if held is not None and held.origin is repeated:
                return held.rounded
            return self._round_again(module, weight, dtype, repeated)
        if held is not None:
            self._note(module, held.origin)
            result = held.rounded
        else:
            result, origin = self._round_anew(module, weight, dtype)
            if self.hold is not None:
                state = _state_of(weight)
                self.hold.rounded[_key(module, dtype)] = Held(weight, state, origin, result)
        if self.recording and isinstance(weight, nn.Parameter):
            self._last = weight, result.scale
        return result

    def scale(self, module: nn.Module) -> Tensor:
        """The scale in force, broadcasting against the weight.

        Of a master, what the last forward used for it, or, before the first, what it would use; of
        a resident weight, its own. A forward with another tensor in its place (averaged weights
        under ``functional_call``) is none of it.
        """
        weight = self.weight(module)
        if self.resident is not None:
            compact = self.resident.scale(module)
        elif self._last is not None and self._last[0] is weight:
            compact = self._last[1]
        else:
            with torch.no_grad():
                compact = self.scaler.scale(module, weight, past=self._last_past(weight))
        return expanded(compact, weight, self.scaler.settings)

    def _grid(self, module: nn.Module, x: Tensor, dtype: torch.dtype) -> Rounded:
        """A resident weight, which is its own grid value; what is not finite stays so."""
        assert self.resident is not None
        scale = self.resident.scale(module)
        rounded = round_to_grid(x, self.format, scale, dtype, scaling=self.scaler.settings)
        values = torch.where(x.detach().isinf(), x.detach().to(dtype), rounded.values)
        return Rounded(values, rounded.epilogue, rounded.scale)

    def _held(self, module: nn.Module, dtype: torch.dtype, weight: Tensor) -> Held | None:
        """What is held for that very tensor, as it is now."""
        held = None if self.hold is None else self.hold.rounded.get(_key(module, dtype))
        if held is None or held.tensor is not weight or held.state != _state_of(weight):
            return None
        return held

    def moved(self, module: nn.Module) -> None:
        """The module has changed its device or dtype: drop what belongs to the last forward."""
        self._last = None
        if self.resident is not None:
            self.resident.mark(module)


def _key(module: nn.Module, dtype: torch.dtype) -> tuple[object, ...]:
    return dtype, module.training, torch.is_inference_mode_enabled()


def _state_of(weight: Tensor) -> tuple[object, ...]:
    return weight.device, *mark_of(weight)

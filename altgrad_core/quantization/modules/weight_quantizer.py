"""What quantises a weight: a master, rounded when it is used, or a resident, which is its own grid value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.modules.fake_quant import Rounded
from altgrad_core.quantization.modules.quantizer import Held, TensorQuantizer, state_of
from altgrad_core.quantization.modules.repetition import Origin, transformed
from altgrad_core.quantization.modules.roles import TensorRole, WeightRole
from altgrad_core.quantization.resident.weight import Resident, parameter_of


class WeightQuantizer(TensorQuantizer):
    """Rounds the parameter called ``parameter``, once per use or, under ``hold_weights``, once."""

    def __init__(
        self, parameter: str, fmt: Format, role: WeightRole, axis: int | None = None
    ) -> None:
        grid = role.residency == "grid"
        # A resident weight is rounded where it lives; in the forward that is its own grid value.
        rounding: Rounding = "nearest" if grid else role.rounding
        super().__init__(TensorRole(fmt, role.scaling, rounding, role.native), parameter, axis=axis)
        self.parameter = parameter
        self.role = role
        self.resident = Resident(parameter, fmt, role, axis) if grid else None
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

    def forget(self, module: nn.Module) -> None:
        """See :class:`TensorQuantizer`. A resident weight looks for itself whether its scale fits."""
        self._last = None
        if self.resident is None:
            super().forget(module)

    def remembered(self) -> object:
        """See :class:`TensorQuantizer`."""
        return super().remembered(), self._last

    def remember(self, what: Any) -> None:
        """See :class:`TensorQuantizer`."""
        past, self._last = what
        super().remember(past)

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
                state = state_of(weight)
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
        return self.scaler.expanded(compact, weight)

    def _grid(self, module: nn.Module, x: Tensor, dtype: torch.dtype) -> Rounded:
        """A resident weight, which is its own grid value; what is not finite stays so."""
        assert self.resident is not None
        scale = self.resident.scale(module)
        scaler = self.scaler
        return self.place(
            x,
            self.format,
            scale,
            dtype,
            scaling=scaler.settings,
            axis=scaler.axis,
            keep_inf=True,
        )

    def _held(self, module: nn.Module, dtype: torch.dtype, weight: Tensor) -> Held | None:
        """What is held for that very tensor, as it is now."""
        held = None if self.hold is None else self.hold.rounded.get(_key(module, dtype))
        if held is None or held.tensor is not weight or held.state != state_of(weight):
            return None
        return held

    def moved(self, module: nn.Module) -> None:
        """The module has changed its device or dtype: drop what belongs to the last forward."""
        self._last = None
        if self.resident is not None:
            self.resident.mark(module)


def _key(module: nn.Module, dtype: torch.dtype) -> tuple[object, ...]:
    return dtype, module.training, torch.is_inference_mode_enabled()

"""What quantises one tensor of a module: its format, its scale, and what is held for the step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.quantization.fake_quant import Rounded, round_to_grid
from altgrad_core.quantization.resident import Resident
from altgrad_core.quantization.roles import TensorRole, WeightRole
from altgrad_core.quantization.scaling import Scaler, expanded


@dataclass
class Hold:
    """What a quantizer keeps under ``hold_weights``. Keys say for what a rounding is valid."""

    rounded: dict[tuple[object, ...], Rounded] = field(default_factory=dict)
    recorded: bool = False


class TensorQuantizer:
    """Rounds a tensor that belongs to ``module``, which is passed with every call.

    A plain object, not a module: a quantised layer stays a leaf of its model, with the same
    state-dict keys (plus what scaling and residency must remember). It keeps no reference to the
    module, so that ``copy.deepcopy`` and moving to another device need no care.
    """

    def __init__(self, role: TensorRole, tensor: str) -> None:
        self.format = role.format
        self.rounding: Rounding = role.rounding
        self.scaler = Scaler(role.format, role.scaling, tensor)
        self.hold: Hold | None = None
        self.generator: torch.Generator | None = None
        """What stochastic rounding draws from."""
        self.recording = True
        """False while a pass is repeated for measurement: scales then remember nothing of it."""

    def scale_of(self, module: nn.Module, x: Tensor) -> Tensor:
        """The scale for ``x``, broadcasting against it; nothing is recorded.

        In training mode, of an ``x`` that was rounded in this step: the scale that it was rounded
        with, though delayed scales have moved on since.
        """
        compact = self.scaler.scale(module, x, repeat=module.training)
        return expanded(compact, x, self.scaler.settings)

    def round(self, module: nn.Module, x: Tensor, dtype: torch.dtype) -> Rounded:
        """``x`` on its grid, as values in ``dtype``. Records amax if the module is training.

        Stochastic rounding is for training: in eval mode values go to the nearest.
        """
        record = module.training and self.recording
        same_step = self.hold is not None and self.hold.recorded
        with torch.no_grad():
            scale = self.scaler.scale(
                module,
                x,
                record=record,
                same_step=same_step,
                repeat=module.training and not self.recording,
            )
        if record and self.hold is not None:
            self.hold.recorded = True
        return round_to_grid(
            x,
            self.format,
            scale,
            dtype,
            scaling=self.scaler.settings,
            rounding=self.rounding if module.training else "nearest",
            generator=self.generator,
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
        self._last_scale: Tensor | None = None

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

    def weight(self, module: nn.Module) -> nn.Parameter:
        """The parameter itself, also while attention shows a rounded tensor in its place."""
        weight = module._parameters[self.parameter]
        assert weight is not None
        return weight

    def round(self, module: nn.Module, x: Tensor, dtype: torch.dtype) -> Rounded:
        """See :class:`TensorQuantizer`; the scale of a resident weight is its own."""
        if self.resident is None:
            return super().round(module, x, dtype)
        scale = self.resident.scale(module)
        return round_to_grid(x, self.format, scale, dtype, scaling=self.scaler.settings)

    def rounded(self, module: nn.Module, dtype: torch.dtype) -> Rounded:
        """The weight on its grid.

        A held rounding is used again only for the dtype and mode it was made for, and only if no
        in-place operation has changed the weight since; writes through ``.data`` cannot be seen.
        """
        weight = self.weight(module)
        if self.hold is None:
            result = self.round(module, weight, dtype)
        else:
            inference = torch.is_inference_mode_enabled()
            key = (dtype, module.training, inference, weight.device, weight._version)
            if key not in self.hold.rounded:
                self.hold.rounded[key] = self.round(module, weight, dtype)
            result = self.hold.rounded[key]
        if self.recording:
            self._last_scale = result.scale
        return result

    def scale(self, module: nn.Module) -> Tensor:
        """The scale in force, broadcasting against the weight.

        Of a master, what the last forward used, or, before the first, what it would use; of a
        resident weight, its own.
        """
        weight = self.weight(module)
        if self.resident is not None:
            compact = self.resident.scale(module)
        elif self._last_scale is not None:
            compact = self._last_scale
        else:
            with torch.no_grad():
                compact = self.scaler.scale(module, weight)
        return expanded(compact, weight, self.scaler.settings)

    def forget(self) -> None:
        """Drop what belongs to the last forward: the module has changed its device or dtype."""
        self._last_scale = None

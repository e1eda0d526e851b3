"""What quantises one tensor of a module: its format, its scale, and what is held for the step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.fake_quant import Rounded, round_to_grid
from altgrad_core.quantization.scaling import Scaler
from altgrad_core.quantization.settings import ScalingSettings


@dataclass
class Hold:
    """What a quantizer keeps under ``hold_weights``. Keys say for what a rounding is valid."""

    rounded: dict[tuple[object, ...], Rounded] = field(default_factory=dict)
    recorded: bool = False


class TensorQuantizer:
    """Rounds a tensor that belongs to ``module``, which is passed with every call.

    A plain object, not a module: a quantised layer stays a leaf of its model, with the same
    state-dict keys (plus, in delayed mode, the history). It keeps no reference to the module, so
    that ``copy.deepcopy`` and moving to another device need no care.
    """

    def __init__(self, fmt: Format, settings: ScalingSettings, buffer: str) -> None:
        self.format = fmt
        self.scaler = Scaler(fmt, settings, buffer)
        self.hold: Hold | None = None

    def round(self, module: nn.Module, x: Tensor, dtype: torch.dtype) -> Rounded:
        """``x`` on its grid, as values in ``dtype``. Records amax if the module is training."""
        record = module.training
        same_step = self.hold is not None and self.hold.recorded
        with torch.no_grad():
            scale = self.scaler.scale(module, x, record=record, same_step=same_step)
        if record and self.hold is not None:
            self.hold.recorded = True
        power_of_two = self.scaler.settings.power_of_two
        return round_to_grid(x, self.format, scale, dtype, power_of_two=power_of_two)


class WeightQuantizer(TensorQuantizer):
    """Rounds the parameter called ``parameter``, once per use or, under ``hold_weights``, once."""

    def __init__(self, parameter: str, fmt: Format, settings: ScalingSettings) -> None:
        super().__init__(fmt, settings, f"{parameter}_amax_history")
        self.parameter = parameter
        self._last_scale: Tensor | None = None

    def weight(self, module: nn.Module) -> nn.Parameter:
        """The parameter itself, also while attention shows a rounded tensor in its place."""
        weight = module._parameters[self.parameter]
        assert weight is not None
        return weight

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
        self._last_scale = result.scale
        return result

    def scale(self, module: nn.Module) -> Tensor:
        """The scale that the last forward used, or, before the first, the one that it would use."""
        if self._last_scale is not None:
            return self._last_scale
        with torch.no_grad():
            return self.scaler.scale(module, self.weight(module))

    def forget(self) -> None:
        """Drop what belongs to the last forward: the module has changed its device or dtype."""
        self._last_scale = None

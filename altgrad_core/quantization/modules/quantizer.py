"""What quantises one tensor of a module: its format, its scale, and what is held for the step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Rounding
from altgrad_core.quantization.marks import mark_of
from altgrad_core.quantization.modules.fake_quant import Rounded, round_to_grid
from altgrad_core.quantization.modules.repetition import (
    Origin,
    PassLog,
    recomputing,
    repeatable,
    traced,
    transformed,
)
from altgrad_core.quantization.modules.roles import TensorRole
from altgrad_core.quantization.modules.shared_input import SharedInput
from altgrad_core.quantization.native.codes import place_codes
from altgrad_core.quantization.scaling import Scaler


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
    inputs: SharedInput = field(default_factory=SharedInput)
    """Shared by all quantizers of the model."""


class TensorQuantizer:
    """Rounds a tensor that belongs to ``module``, which is passed with every call.

    A plain object, not a module: a quantised layer stays a leaf of its model, with the same
    state-dict keys (plus what scaling and residency must remember). It keeps no reference to the
    module, so that ``copy.deepcopy`` and moving to another device need no care.

    axis:
        the dimension of the output channels of a weight whose rows do not lie along its last one.
    backward:
        whether the tensor is a gradient, which is met in backward passes and never recomputed.
    """

    def __init__(
        self, role: TensorRole, tensor: str, *, axis: int | None = None, backward: bool = False
    ) -> None:
        self.format = role.format
        self.rounding: Rounding = role.rounding
        self.scaler = Scaler(role.format, role.scaling, tensor, axis)
        self.native = role.native
        self.place = place_codes if role.native else round_to_grid
        self.hold: Hold | None = None
        self.generator: torch.Generator | None = None
        """What stochastic rounding draws from."""
        self.recording = True
        """False while a pass is repeated for measurement: scales then remember nothing of it."""
        self._backward = backward
        self._passes = PassLog()
        self._past: Tensor | None = None
        """What the last recorded forward went by: a repetition of it must see the same."""

    @property
    def codes(self) -> torch.dtype:
        """The dtype of the codes that native products take."""
        dtype: torch.dtype = getattr(torch, self.format.native)
        return dtype

    def buffers(self) -> tuple[str, ...]:
        """Names of the buffers that the module has for this tensor."""
        return self.scaler.buffers()

    def forget(self, module: nn.Module) -> None:
        """The tensors that come are others than those before: what is remembered of them goes."""
        self.scaler.forget(module)

    def remembered(self) -> object:
        """What the last forward left here, for :meth:`remember`."""
        return (self._past,)

    def remember(self, what: Any) -> None:
        """A forward was repeated that left this."""
        (self._past,) = what

    def scale_of(self, module: nn.Module, x: Tensor) -> Tensor:
        """The scale for ``x``, broadcasting against it; nothing is recorded.

        In training mode, of an ``x`` that was rounded in this step: the scale that it was rounded
        with, though delayed scales have moved on since.
        """
        past = self._last_past(x) if module.training else None
        compact = self.scaler.scale(module, x, past=past)
        return self.scaler.expanded(compact, x)

    def round(self, module: nn.Module, x: Tensor, dtype: torch.dtype) -> Rounded:
        """``x`` on its grid, as values, or codes, in ``dtype``. Records amax if the module is training.

        Stochastic rounding is for training: in eval mode values go to the nearest. What is
        recomputed for a backward pass is rounded as it was in its forward pass, and not recorded
        again; under a transform of ``torch.func`` nothing is recorded. Under ``hold_weights``, an input
        that another module has just rounded in the same way is not rounded again.
        """
        hold = self.hold
        if hold is not None and self._depends_on_nothing_else(module, x):
            scaler = self.scaler
            grid = self.format, scaler.settings, scaler.headroom, scaler.axis, dtype
            rounded = hold.inputs.find(module, x, grid)
            if rounded is None:
                rounded = self._round_anew(module, x, dtype)[0]
                hold.inputs.keep(module, x, grid, rounded)
            return rounded
        repeated = self._repeated(module)
        if repeated is not None:
            return self._round_again(module, x, dtype, repeated)
        return self._round_anew(module, x, dtype)[0]

    def _depends_on_nothing_else(self, module: nn.Module, x: Tensor) -> bool:
        """Whether rounding ``x`` gives the same in every module, and changes in ``x`` can be seen."""
        if traced() or self._backward or x.is_inference() or torch.is_inference_mode_enabled():
            return False
        remembers = self.scaler.delayed or self.scaler.frozen
        return not remembers and (self.rounding == "nearest" or not module.training)

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
            self._passes.note(origin, tuple(state_of(p) for p in weights))

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
        return self.place(
            x,
            self.format,
            scale,
            dtype,
            scaling=self.scaler.settings,
            axis=self.scaler.axis,
            rounding=self.rounding if module.training else "nearest",
            generator=generator,
        )


def state_of(weight: Tensor) -> tuple[object, ...]:
    """Changes with every operation in place, and with where the tensor lives."""
    return weight.device, *mark_of(weight)

"""The grid of each quantised weight, as optimizers and monitors see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.quantization.modules.linear import QuantizedModule
from altgrad_core.quantization.modules.weight_quantizer import WeightQuantizer
from altgrad_core.quantization.resident.together import scales

_SMALLEST_GAP = {torch.float16: 2.0**-24}


@dataclass(frozen=True, eq=False)
class ParameterGeometry:
    """The :class:`WeightGeometry` of one parameter of one quantised module.

    Every method works on whole tensors, on any device, and none waits for it.
    """

    name: str
    module: QuantizedModule
    attribute: str
    """Name of the parameter within the module."""
    shared: bool = False
    """Whether other modules round the same parameter, too."""

    @property
    def quantizer(self) -> WeightQuantizer:
        """What rounds the weight now; a format shift exchanges it."""
        return self.module.weight_quantizers[self.attribute]

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter itself."""
        return self.quantizer.weight(self.module)

    @property
    def format(self) -> Format:
        """The format of the grid."""
        return self.quantizer.format

    @property
    def resident(self) -> bool:
        """Whether the weight lives on the grid."""
        return self.quantizer.resident is not None

    def scale_changes(self) -> Tensor:
        """How often the scales of a resident weight have changed so far, 0-d; 0 for a master."""
        if self.quantizer.resident is None:
            return torch.zeros((), dtype=torch.float32, device=self.parameter.device)
        return self.quantizer.resident.changes(self.module)

    def scale(self) -> Tensor:
        """The scale in force, float32, broadcasting against the weight: see :class:`WeightGeometry`."""
        return self.quantizer.scale(self.module)

    @torch.no_grad()
    def ulp(self, weight: Tensor) -> Tensor:
        """``scale · ulp(weight / scale)``; shape and dtype of ``weight``.

        Never less than ``2^-126`` (float16: ``2^-24``): what would underflow counts as that, so that
        nobody divides by zero.
        """
        if not self.format.scaled:
            return self.format.ulp(weight)
        scale = self.scale()
        gaps = self.format.ulp(weight / scale) * scale
        return gaps.clamp_min(_SMALLEST_GAP.get(gaps.dtype, 2.0**-126))

    @torch.no_grad()
    def rung(self, weight: Tensor) -> Tensor:
        """Rung (int32) that each element of ``weight`` rounds to."""
        if not self.format.scaled:
            return self.format.to_rung(weight)
        return self.format.to_rung(weight / self.scale())

    @torch.no_grad()
    def value(self, rungs: Tensor) -> Tensor:
        """``scale · value`` (float32) of each rung."""
        values = self.format.from_rung(rungs)
        return values * self.scale() if self.format.scaled else values


def scales_of(geometries: Sequence[ParameterGeometry]) -> list[Tensor]:
    """:meth:`ParameterGeometry.scale` of each; of weights on their grids together, where kernels can."""
    living = [(g, g.quantizer.resident) for g in geometries]
    compact = iter(scales([(g.module, resident) for g, resident in living if resident is not None]))
    return [
        g.scale() if resident is None else g.quantizer.scaler.expanded(next(compact), g.parameter)
        for g, resident in living
    ]


def weight_geometry(model: nn.Module) -> dict[str, ParameterGeometry]:
    """The geometry of every quantised weight of ``model``, by parameter name, in model order.

    A weight that several modules share appears once, under its first name; one that is computed
    (pruning, a parametrization) is no parameter and does not appear.
    """
    found: dict[int, tuple[QuantizedModule, str]] = {}
    shared: set[int] = set()
    for module in model.modules():
        if isinstance(module, QuantizedModule):
            for attribute, quantizer in module.weight_quantizers.items():
                if module._parameters.get(attribute) is None:  # pruned or parametrized since
                    continue
                parameter = id(quantizer.weight(module))
                if parameter in found:
                    shared.add(parameter)
                found.setdefault(parameter, (module, attribute))
    return {
        name: ParameterGeometry(name, *found[id(parameter)], id(parameter) in shared)
        for name, parameter in model.named_parameters()
        if id(parameter) in found
    }


@torch.no_grad()
def latent_position(geometry: WeightGeometry, weight: Tensor) -> Tensor:
    """Where each element of ``weight`` stands on the ladder, as a real number of rungs.

    The rung of the grid value next to it, plus the way to it in units of the gap that the element
    lies in: ``b(w) = k + (w − v(k)) / S(w)`` with ``k`` the rung that ``w`` rounds to and
    ``v(k)`` its value. So ``b`` is the rung itself on a grid value, k + ½ in the middle between
    two, antisymmetric, continuous, and rising with ``w``; beyond the last value it goes on at the
    last gap. float64 for formats of more than 16 bits, whose rungs float32 cannot hold; float32
    otherwise. Shape of ``weight``.
    """
    rung = geometry.rung(weight)
    within = (weight - geometry.value(rung)) / geometry.ulp(weight)
    dtype = torch.float64 if geometry.format.bits > 16 else torch.float32
    return rung.to(dtype) + within.to(dtype)

"""What an optimizer or a monitor may know about a quantised weight."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from altgrad_core.interfaces.format import Format


class WeightGeometry(Protocol):
    """The local geometry of the grid on which one weight is rounded.

    Units: ``scale`` maps grid values to weights (``w ≈ scale · grid value``); :meth:`ulp` is in units of
    the weight, so it includes the scale; rungs are integers and do not depend on the scale.
    """

    @property
    def name(self) -> str:
        """Qualified name of the parameter, e.g. ``encoder.layer.0.attention.q.weight``."""

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter itself: a float32 master, or, if :attr:`resident`, grid values times scale."""

    @property
    def format(self) -> Format:
        """The format of the grid."""

    @property
    def resident(self) -> bool:
        """Whether the weight lives on the grid: every update is rounded back to it."""

    def scale_changes(self) -> Tensor:
        """How often the scales of a resident weight have changed so far, 0-d; 0 for a master."""

    def scale(self) -> Tensor:
        """The scale in force, broadcasting against the weight: 0-d, per row, or of its shape.

        Of a master, the one that the last forward pass used, or, before the first, the one that it
        would use. Of a resident weight, its own, which an update may have changed.
        """

    def ulp(self, weight: Tensor) -> Tensor:
        """Stiffness ``S(w) = scale · ulp(w / scale)``, the gap to the neighbouring grid value; shape of ``weight``."""

    def rung(self, weight: Tensor) -> Tensor:
        """Rung (int32) that each element rounds to, under :meth:`scale`."""

    def value(self, rungs: Tensor) -> Tensor:
        """The weight (float32) at each rung, under :meth:`scale`."""

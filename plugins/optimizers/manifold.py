"""``manifold_adamw``: AdamW in the coordinates of the grid.

In rungs ``k`` a weight moves as ``dw = S · dk``, so the loss has the gradient ``dL/dk = S · g``,
and an Adam step of ``k`` moves the weight by ``Δw = −lr · S · Adam(S · g)``: site ``both``, the
default. ``pre`` keeps only the inner S, which Adam divides out again but for its eps and for
changes of S; ``post`` keeps only the outer one. Weight decay is AdamW's own: decoupled, and not
multiplied by S, so that switching the manifold on changes what the gradient does and nothing
else. S is taken where the weight stands before the update; parameters that are on no grid have S
= 1, that is, plain AdamW.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_core.quantization.geometry import latent_position
from altgrad_core.quantization.kernels.position import pack, unpack
from altgrad_plugins.optimizers.adamw import AdamWOnGrids, adam_state, adam_update
from altgrad_plugins.optimizers.closure import run_closure
from altgrad_plugins.optimizers.fused import FusedStep
from altgrad_plugins.optimizers.settings import ManifoldAdamWSettings
from altgrad_plugins.optimizers.stiffness import Stiffness
from altgrad_plugins.optimizers.stretched import stretched_update

_START = "start_position"


class ManifoldAdamWPlugin(OptimizerPlugin):
    """Builds :class:`ManifoldAdamW`."""

    def __init__(self, settings: ManifoldAdamWSettings) -> None:
        self.settings = settings

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> ManifoldAdamW:
        """See :class:`OptimizerPlugin`. Raises ``UserError`` as :class:`Stiffness` does."""
        return ManifoldAdamW(groups, geometry, self.settings, learning_rate)


class ManifoldAdamW(AdamWOnGrids):
    """AdamW with the stiffness of the grid at one of four sites.

    With ``enabled: false`` or ``site: none``, and for parameters on no grid, the whole update is that
    of torch's kernels, and equals AdamW bit for bit. Else it is what :mod:`.stretched` makes of
    them, compiled where that can be: see :mod:`.fused`.
    """

    own_dtypes = (_START,)

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        settings: ManifoldAdamWSettings,
        learning_rate: float,
    ) -> None:
        super().__init__(groups, geometry, settings, learning_rate)
        self.settings = settings
        self.stiffness = Stiffness(settings, self.geometry)
        self._fused = FusedStep(settings, self.geometry, self.stiffness)
        self._site = settings.site if settings.enabled else "none"

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. Gradients are left as they are."""
        loss = run_closure(closure)
        for group in self.param_groups:
            on_grid: list[nn.Parameter] = []
            others: list[nn.Parameter] = []
            for parameter in group["params"]:
                (on_grid if parameter in self.geometry else others).append(parameter)
            free, state = adam_state(self, group, others), adam_state(self, group, on_grid)
            self._remember_start(state.params)
            if self._site == "none":
                adam_update(group, state)
            else:
                state, free = self._fused(group, state, free)
                for portion in state.portions():
                    stiffness = self.stiffness(portion.params)
                    stretched_update(group, portion, stiffness, self._site)
            adam_update(group, free)
        return loss

    def bit_position(self, parameter: nn.Parameter) -> Tensor:
        """Where each weight stands on its ladder now, in rungs: see ``latent_position``.

        Computed when asked for. Raises ``KeyError`` for a parameter that is on no grid.
        """
        return latent_position(self.geometry[parameter], parameter.detach())

    def bit_drift(self, parameter: nn.Parameter) -> Tensor:
        """How far each weight has moved since before the first step, in rungs, to 1/512 of a rung.

        Positions are taken under the scale of their time, so a change of scale counts as
        movement, as it does in the stored bits. Zeros before the first step. Raises ``KeyError``
        for a parameter that is on no grid, or if ``track_position`` is off. Of a weight that has
        moved to another format, start and end are on two ladders, and the drift means nothing.
        """
        position = self.bit_position(parameter)
        if not self.settings.track_position:
            raise KeyError("The starting positions were not kept: track_position is off.")
        packed = self.state[parameter].get(_START)
        if packed is None:
            return torch.zeros_like(position)
        return position - unpack(packed, self.geometry[parameter].format)

    def _remember_start(self, params: Sequence[nn.Parameter]) -> None:
        if not self.settings.track_position:
            return
        for parameter in params:
            state = self.state[parameter]
            if _START not in state:
                fmt = self.geometry[parameter].format
                state[_START] = pack(self.bit_position(parameter), fmt)

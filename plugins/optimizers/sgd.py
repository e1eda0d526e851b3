"""``sgd``: torch's SGD, into which the stiffness of the grid can enter.

Robbins and Monro 1951, "A Stochastic Approximation Method"; momentum as in Sutskever et al. 2013,
"On the importance of initialization and momentum in deep learning"::

    g  = dL/dw + λ w                        L2 weight decay, coupled, as torch has it
    b  = μ b + g                            the first step takes b = g
    d  = b, or g + μ b with nesterov
    Δw = −lr · d                            this is SGD(g)

With ``S`` the stiffness of each weight, ``site`` makes this ``SGD(S·g)`` (pre), ``S·SGD(g)`` (post)
or ``S·SGD(S·g)`` (both). One rung ``dk`` is worth ``dw = S · dk`` and the gradient in rungs is
``dL/dk = S · g``, so ``both`` with ``normalize: none`` is SGD in rungs; without momentum it is ``Δw =
−lr · S² · g``. Unlike Adam, SGD divides nothing out: an S at site ``pre`` counts in full. L2 decay
is a part of the loss, so S multiplies it, too.

All parameters are updated by SGD; S enters where they are on a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd as torch_sgd

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_plugins.optimizers.closure import run_closure
from altgrad_plugins.optimizers.settings import SGDSettings
from altgrad_plugins.optimizers.stiffness import Stiffness
from altgrad_plugins.optimizers.whole import WholeOptimizer

_BUFFER = "momentum_buffer"


class SGDPlugin(OptimizerPlugin):
    """Builds :class:`ManifoldSGD`."""

    def __init__(self, settings: SGDSettings) -> None:
        self.settings = settings

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> ManifoldSGD:
        """See :class:`OptimizerPlugin`. Raises ``UserError`` as :class:`Stiffness` does."""
        return ManifoldSGD(groups, geometry, self.settings, learning_rate)


class ManifoldSGD(WholeOptimizer, torch.optim.SGD):
    """SGD with the stiffness of the grid at one of four sites.

    All arithmetic of SGD is done by torch's own kernels, by default the ones that it would choose;
    with ``site: none`` and for parameters on no grid nothing else is, and the update equals that of
    ``torch.optim.SGD`` bit for bit.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        settings: SGDSettings,
        learning_rate: float,
    ) -> None:
        super().__init__(
            groups,
            lr=learning_rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )
        self.geometry = dict(geometry) if settings.site != "none" else {}
        self.stiffness = Stiffness(settings, self.geometry)
        self._site = settings.site

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update. Gradients are left as they are."""
        loss = run_closure(closure)
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            others = [p for p in moving if p not in self.geometry]
            on_grid = [p for p in moving if p in self.geometry]
            decay = group["weight_decay"]
            self._sgd(group, others, others, [p.grad for p in others], decay)
            if on_grid:
                self._update_on_grid(group, on_grid)
        return loss

    def _update_on_grid(self, group: Mapping[str, Any], params: Sequence[nn.Parameter]) -> None:
        weights: list[Tensor] = list(params)
        grads = [p.grad for p in params if p.grad is not None]
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, weights, alpha=group["weight_decay"]))
        stiffness = self.stiffness(params)
        if self._site in ("pre", "both"):
            grads = list(torch._foreach_mul(grads, stiffness))
        if self._site == "pre":
            self._sgd(group, params, weights, grads)
            return
        # torch's kernel writes the step -lr·d of each weight into zeros; then S stretches it
        steps = [torch.zeros_like(p) for p in params]
        self._sgd(group, params, steps, grads)
        torch._foreach_addcmul_(weights, stiffness, steps)

    def _sgd(
        self,
        group: Mapping[str, Any],
        params: Sequence[nn.Parameter],
        targets: Sequence[Tensor],
        grads: Sequence[Tensor],
        weight_decay: float = 0.0,
    ) -> None:
        """Move ``targets`` as SGD would, with the momentum of ``params``, by torch's own kernels."""
        momentum, nesterov = group["momentum"], group["nesterov"]
        if nesterov:
            grads = [g.clone() for g in grads]  # torch's foreach kernel adds the momentum to them
        buffers = [self.state[p].get(_BUFFER) for p in params] if momentum else []
        torch_sgd(
            list(targets),
            list(grads),
            buffers,
            foreach=group["foreach"],
            fused=group["fused"],
            weight_decay=weight_decay,
            momentum=momentum,
            lr=group["lr"],
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
        )
        for parameter, buffer in zip(params, buffers, strict=False):
            self.state[parameter][_BUFFER] = buffer

"""``adamw``: torch's AdamW, and what the other optimizers share of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw as torch_adamw

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_plugins.optimizers.settings import AdamWSettings
from altgrad_plugins.optimizers.whole import WholeOptimizer

_FUSED_DEVICES = ("cuda", "cpu")


class AdamWPlugin(OptimizerPlugin):
    """Builds ``torch.optim.AdamW``; the geometry plays no part."""

    def __init__(self, settings: AdamWSettings) -> None:
        self.settings = settings

    def build(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        *,
        learning_rate: float,
        generator: torch.Generator,
    ) -> torch.optim.Optimizer:
        """See :class:`OptimizerPlugin`."""
        return torch.optim.AdamW(groups, **adamw_arguments(groups, self.settings, learning_rate))


def adamw_arguments(
    groups: Sequence[dict[str, Any]], settings: AdamWSettings, learning_rate: float
) -> dict[str, Any]:
    """Keyword arguments of ``torch.optim.AdamW``, with the implementation chosen."""
    implementation = settings.implementation
    if implementation == "auto":
        parameters = [p for group in groups for p in group["params"]]
        fits = all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for p in parameters)
        implementation = "fused" if fits else "foreach"
    return {
        "lr": learning_rate,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
        "fused": implementation == "fused",
        "foreach": implementation == "foreach",
    }


class AdamWOnGrids(WholeOptimizer, torch.optim.AdamW):
    """AdamW that knows the grids of its parameters, for others to build on."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        geometry: Mapping[nn.Parameter, WeightGeometry],
        settings: AdamWSettings,
        learning_rate: float,
    ) -> None:
        super().__init__(groups, **adamw_arguments(groups, settings, learning_rate))
        self.leave_scaling_to_the_scaler()
        self.geometry = dict(geometry)


@dataclass
class AdamState:
    """The parameters of a group that have a gradient, with their moments, as parallel lists."""

    params: list[nn.Parameter]
    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]

    def rows(self) -> Iterator[tuple[nn.Parameter, Tensor, Tensor, Tensor, Tensor]]:
        """Of each parameter: itself, gradient, moments and step."""
        return zip(
            self.params, self.grads, self.exp_avgs, self.exp_avg_sqs, self.steps, strict=True
        )

    def without(self, done: Collection[int]) -> AdamState:
        """The others."""
        if len(done) == len(self.params):
            return AdamState([], [], [], [], [])
        rest = [row for index, row in enumerate(self.rows()) if index not in done]
        return AdamState(*map(list, zip(*rest, strict=True)))

    def portions(self) -> Iterator[AdamState]:
        """What to work on at once: on the CPU one tensor, which stays in the cache; else all of them."""
        if all(p.device.type == "cpu" for p in self.params):
            for p, g, m, v, t in self.rows():
                yield AdamState([p], [g], [m], [v], [t])
        else:
            yield self


def adam_state(
    optimizer: torch.optim.AdamW, group: Mapping[str, Any], params: Iterable[nn.Parameter]
) -> AdamState:
    """Collect the state of ``params``, which is created at the first step, by torch's own code."""
    state = AdamState([], [], [], [], [])
    optimizer._init_group(  # type: ignore[no-untyped-call]
        {**group, "params": list(params)},
        state.params,
        state.grads,
        state.exp_avgs,
        state.exp_avg_sqs,
        [],
        state.steps,
    )
    return state


def adam_update(
    group: Mapping[str, Any],
    state: AdamState,
    *,
    targets: Sequence[Tensor] | None = None,
    grads: Sequence[Tensor] | None = None,
    weight_decay: float | None = None,
) -> None:
    """One AdamW step by torch's own kernels.

    targets:
        what is updated instead of the parameters.
    grads:
        what the moments see instead of the gradients.
    weight_decay:
        instead of the group's.
    """
    if not state.params:
        return
    beta1, beta2 = group["betas"]
    torch_adamw(
        list(targets if targets is not None else state.params),
        list(grads if grads is not None else state.grads),
        state.exp_avgs,
        state.exp_avg_sqs,
        [],
        state.steps,
        foreach=group["foreach"],
        fused=group["fused"],
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"] if weight_decay is None else weight_decay,
        eps=group["eps"],
        maximize=False,
    )


def step_counter(group: Mapping[str, Any], parameter: nn.Parameter) -> Tensor:
    """A 0-d zero to count steps with, where torch's Adam keeps its own: on the device if fused."""
    device = parameter.device if group["fused"] else torch.device("cpu")
    return torch.zeros((), dtype=torch.float32, device=device)

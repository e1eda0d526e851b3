"""AdamW's step stretched by the stiffness, by torch's operators: what the compiled step has to repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from altgrad_plugins.optimizers.adamw import AdamState, adam_update
from altgrad_plugins.optimizers.settings import Site


def stretched_update(
    group: Mapping[str, Any], state: AdamState, stiffness: list[Tensor], site: Site
) -> None:
    """One step of all parameters of ``state``; ``stiffness`` is S of each, shaped like it."""
    grads = state.grads
    if site in ("pre", "both"):
        grads = list(torch._foreach_mul(state.grads, stiffness))
    if site == "pre":
        adam_update(group, state, grads=grads)
        return
    # Torch's kernel writes the step -lr·Adam(·) of each weight into zeros, where none of its
    # digits are lost; then it is stretched by S.
    steps = [torch.zeros_like(p) for p in state.params]
    adam_update(group, state, targets=steps, grads=grads, weight_decay=0.0)
    weights: list[Tensor] = list(state.params)
    if group["weight_decay"]:
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
    torch._foreach_addcmul_(weights, stiffness, steps)

"""Parameters of which this process holds a part only (FSDP2): no scale can be found from a part."""

from __future__ import annotations

import sys

from torch import Tensor, nn

from altgrad_core.errors import UserError


def is_sharded(tensor: Tensor | None) -> bool:
    """Whether this process holds a part of it only. Imports nothing: who has one has imported it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def refuse_sharded(model: nn.Module, resident: bool) -> None:
    """Raise ``UserError`` for a model that ``fully_shard`` has spread over several processes."""
    for name, parameter in model.named_parameters():
        if is_sharded(parameter):
            then = (
                "use residency: master" if resident else "quantise the model first, then shard it"
            )
            raise UserError(
                f"{name} is spread over several processes (FSDP), and a scale cannot be found from "
                f"a part of a weight: {then}."
            )

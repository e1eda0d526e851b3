"""``nn.MultiheadAttention`` on a grid.

The module computes its four projections inside one function that reads the weights directly, so
exchanging a layer would change nothing. Instead the rounded weights stand in for the parameters
while ``forward`` runs, those of ``out_proj`` included. PyTorch's own code then does the rest, its
fast path included.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from altgrad_core.quantization.modules.linear import QuantizedModule
from altgrad_core.quantization.modules.stand_in import rounded_weights


class QuantizedMultiheadAttention(QuantizedModule, nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with rounded projection weights and straight-through gradients.

    The packed ``in_proj_weight`` is one tensor and has one scale. ``out_proj`` is a layer of its
    own with its own format; its rounding takes part if ``quantize_model`` has converted it.
    """

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Arguments and results as for ``nn.MultiheadAttention``."""
        with ExitStack() as stack:
            stack.enter_context(rounded_weights(self, autocast=True))
            if isinstance(self.out_proj, QuantizedModule):
                stack.enter_context(rounded_weights(self.out_proj, autocast=True))
            return super().forward(*args, **kwargs)

    def extra_repr(self) -> str:
        """Formats and scaling."""
        return self.describe()

"""``nn.MultiheadAttention`` on a grid.

The module computes its four projections inside one function that reads the weights directly, so
exchanging a layer would change nothing. Instead the rounded weights stand in for the parameters
while ``forward`` runs: an instance attribute is found before a registered parameter of the same
name. PyTorch's own code then does the rest, its fast path included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.modules.fake_quant import straight_through
from altgrad_core.quantization.modules.linear import QuantizedModule, install, product_dtype
from altgrad_core.quantization.modules.roles import Roles
from altgrad_core.quantization.modules.weight_quantizer import WeightQuantizer

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


class QuantizedMultiheadAttention(QuantizedModule, nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with rounded projection weights and straight-through gradients.

    The packed ``in_proj_weight`` is one tensor and has one scale. ``out_proj`` is a layer of its
    own with its own format; its rounding takes part if ``quantize_model`` has converted it.
    """

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Arguments and results as for ``nn.MultiheadAttention``."""
        with ExitStack() as stack:
            stack.enter_context(_rounded_weights(self))
            if isinstance(self.out_proj, QuantizedModule):
                stack.enter_context(_rounded_weights(self.out_proj))
            return super().forward(*args, **kwargs)

    def extra_repr(self) -> str:
        """Formats and scaling."""
        return self.describe()


@contextmanager
def _rounded_weights(module: QuantizedModule) -> Iterator[None]:
    """Let attribute access on ``module`` find rounded weights in place of its parameters."""
    quantizers = {} if module.bypassed else module.weight_quantizers
    shadowed = {}  # what pruning and the old weight norm have put there
    try:
        for name, quantizer in quantizers.items():
            _refuse_property(module, name)
            weight = quantizer.value(module)
            rounded = quantizer.rounded(module, product_dtype(weight), weight)
            values = rounded.values
            if rounded.epilogue is not None:
                values = (values.float() * rounded.epilogue).to(values.dtype)
            if name in module.__dict__:
                shadowed[name] = module.__dict__[name]
            module.__dict__[name] = straight_through(weight, values)
        yield
    finally:
        for name in quantizers:
            module.__dict__.pop(name, None)
        module.__dict__.update(shadowed)


def _refuse_property(module: QuantizedModule, name: str) -> None:
    if hasattr(type(module), name):
        raise UserError(
            f"{name!r} of a {type(module).__name__} has a parametrization, behind which attention "
            f"would not see its rounded value. Remove it (remove_parametrizations), or quantise "
            f"the model after it, which leaves the layer alone."
        )


def projections(attention: nn.MultiheadAttention) -> tuple[str, ...]:
    """Names of the projection weights that the module holds itself."""
    return tuple(name for name in _PROJECTIONS if attention._parameters.get(name) is not None)


def convert_attention(
    attention: nn.MultiheadAttention, fmt: Format | None, roles: Roles
) -> QuantizedMultiheadAttention:
    """Turn ``attention`` into a :class:`QuantizedMultiheadAttention`, in place.

    fmt:
        the format of the input projections; None leaves them alone, for the sake of a converted
        ``out_proj``.
    """
    names = projections(attention) if fmt is not None else ()
    weights = {name: WeightQuantizer(name, fmt, roles.weight) for name in names if fmt is not None}
    return install(attention, QuantizedMultiheadAttention, weights, roles)

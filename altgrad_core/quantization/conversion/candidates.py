"""Which modules of a model could be quantised, which never can, and why."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import UninitializedParameter

from altgrad_core.quantization.modules.attention import projections

_KINDS = (nn.Linear, nn.MultiheadAttention)
_PLAIN = (*_KINDS, NonDynamicallyQuantizableLinear)  # the last is attention's out_proj


@dataclass(frozen=True)
class Candidate:
    """A module that holds matrices.

    names:
        every qualified name it has in the model; the first is the one it is reported under.
    obstacle:
        why it cannot be quantised, whatever the user asks for; empty if it can.
    """

    module: nn.Module
    names: tuple[str, ...]
    obstacle: str = ""

    @property
    def name(self) -> str:
        """The name it is reported under."""
        return self.names[0]

    @property
    def linear(self) -> bool:
        """Whether it is a linear layer or the projections of attention, of whatever class."""
        return isinstance(self.module, _KINDS)

    @property
    def lazy(self) -> bool:
        """Whether its parameters have no shape yet."""
        return _is_lazy(self.module)


def find_candidates(model: nn.Module) -> list[Candidate]:
    """Every module with a matrix among its own parameters, in model order, shared ones once."""
    names: dict[nn.Module, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        names[module].append(name)
    readers: dict[nn.Module, nn.MultiheadAttention] = {
        m.out_proj: m for m in names if isinstance(m, nn.MultiheadAttention)
    }
    found = []
    for module, its_names in names.items():
        if not (isinstance(module, _KINDS) or _holds_matrix(module)):
            continue
        obstacle = _obstacle(module)
        reader = readers.get(module)
        if reader is not None and _obstacle(reader):
            obstacle = f"its weight is read by {names[reader][0]!r}, and {_obstacle(reader)}"
        found.append(Candidate(module, tuple(its_names), obstacle))
    return found


def _holds_matrix(module: nn.Module) -> bool:
    own = module.parameters(recurse=False)
    return any(isinstance(p, UninitializedParameter) or p.dim() >= 2 for p in own)


def _is_lazy(module: nn.Module) -> bool:
    return any(isinstance(p, UninitializedParameter) for p in module.parameters(recurse=False))


def _obstacle(module: nn.Module) -> str:
    kind = type(module).__name__
    if not isinstance(module, _KINDS):
        return f"{kind} is not a linear layer"
    if type(module) not in _PLAIN and not _is_lazy(module):
        base = "Linear" if isinstance(module, nn.Linear) else "MultiheadAttention"
        return f"{kind} is a subclass of nn.{base}, whose own behaviour would be lost"
    if "forward" in module.__dict__:
        return "its forward has been replaced on the instance and would not use a rounded weight"
    names = projections(module) if isinstance(module, nn.MultiheadAttention) else ("weight",)
    weights = [module._parameters.get(name) for name in names]
    if not weights or any(weight is None for weight in weights):
        return "its weight is not a plain parameter (weight norm, pruning, a parametrization)"
    if any(weight is not None and not weight.dtype.is_floating_point for weight in weights):
        return "its weight is not a real floating-point tensor"
    return ""

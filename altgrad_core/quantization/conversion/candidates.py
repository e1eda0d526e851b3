"""Which modules of a model could be quantised, which never can, and why."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import UninitializedParameter

from altgrad_core.quantization.adapters import adapter_of

_BASES = (nn.Linear, nn.MultiheadAttention, nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
        adapter = adapter_of(module)
        if adapter is None and not isinstance(module, _BASES) and not _holds_matrix(module):
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
    kind, adapter = type(module).__name__, adapter_of(module)
    if _is_lazy(module):
        return "" if adapter is not None or isinstance(module, _BASES) else _unknown(module)
    if adapter is None:
        return _unknown(module)
    if "forward" in module.__dict__:
        return "its forward has been replaced on the instance and would not use a rounded weight"
    for name in adapter.weights:
        if name not in module._parameters and not hasattr(module, name):
            return f"{kind} has no parameter {name!r}, which its adapter names"
    weights = list(adapter.parameters(module).values())
    if not weights or any(name not in module._parameters for name in adapter.weights):
        return "its weight is not a plain parameter (weight norm, pruning, a parametrization)"
    if any(not weight.dtype.is_floating_point for weight in weights):
        return "its weight is not a real floating-point tensor"
    return ""


def _unknown(module: nn.Module) -> str:
    kind = type(module).__name__
    for base in _BASES:
        if isinstance(module, base):
            return (
                f"{kind} is a subclass of nn.{base.__name__}, a type of its own without an adapter "
                f"(see register_adapter)"
            )
    return f"{kind} is a type without an adapter (see register_adapter)"

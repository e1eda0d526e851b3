"""Which layer gets which format: patterns on names, the last match wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.conversion.candidates import Candidate

Filter = Callable[[nn.Module, str], bool]
_SHOWN = 8


@dataclass(frozen=True)
class Rule:
    """Layers whose name, or the name of a module around them, matches ``pattern`` get ``format``.

    reason:
        what the report says of them where ``format`` is None.
    """

    pattern: str
    format: Format | None
    reason: str = ""

    def matches(self, names: Iterable[str]) -> bool:
        """Whether one of a module's ``names`` matches, or a module around it does."""
        return any(
            fnmatchcase(outer, self.pattern) for name in names for outer in _with_parents(name)
        )


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def decide(
    candidate: Candidate, base: Rule, overrides: Sequence[Rule], filter: Filter | None
) -> tuple[Format | None, str]:
    """The format of a layer, or None and the reason."""
    if candidate.obstacle:
        return None, candidate.obstacle
    rule = base
    if filter is not None and not filter(candidate.module, candidate.name):
        rule = Rule("*", None, "left out by the filter")
    for override in overrides:
        if override.matches(candidate.names):
            rule = override
    return rule.format, rule.reason


def check_patterns(rules: Sequence[Rule], candidates: Sequence[Candidate]) -> None:
    """Raise ``UserError`` for an override that matches no linear layer."""
    linear = [candidate for candidate in candidates if candidate.linear]
    for rule in rules:
        if not any(rule.matches(candidate.names) for candidate in linear):
            raise UserError(
                f"The override pattern {rule.pattern!r} matches no linear layer of the model. "
                f"Layers are: {_some(c.name for c in linear)}. A pattern is matched against whole "
                f"names, and against the names of the modules around a layer; * stands for "
                f"anything, dots included."
            )


def check_head(model: nn.Module, head: Sequence[str]) -> None:
    """Raise ``UserError`` for a head pattern that matches no module."""
    names = [name for name, _ in model.named_modules() if name]
    for pattern in head:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"The task says that its classifier head is {pattern!r}, but its model has no such "
                f"module. Modules are: {_some(names)}. Correct the task's `head`."
            )


def _some(names: Iterable[str]) -> str:
    every = [name or "(root)" for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return (", ".join(every[:_SHOWN]) or "none") + more

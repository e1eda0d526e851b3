"""Which layer gets which format: patterns on names, the last match wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.conversion.candidates import Candidate

Filter = Callable[[nn.Module, str], bool]
_SHOWN = 8
_LEFT_OUT = "left out by the filter"


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
        rule = Rule("*", None, _LEFT_OUT)
    for override in overrides:
        if override.matches(candidate.names):
            rule = override
    return rule.format, rule.reason


def check_patterns(
    rules: Sequence[Rule], candidates: Sequence[Candidate], what: str = "override pattern"
) -> None:
    """Raise ``UserError`` for a pattern that matches no layer, or only such as cannot be quantised."""
    able = [candidate for candidate in candidates if not candidate.obstacle]
    for rule in rules:
        if any(rule.matches(candidate.names) for candidate in able):
            continue
        unable = [c for c in candidates if c.obstacle and rule.matches(c.names)]
        if unable:
            raise UserError(
                f"The {what} {rule.pattern!r} matches only layers that cannot be "
                f"quantised: {_reasons(unable)}."
            )
        raise UserError(
            f"The {what} {rule.pattern!r} matches no layer of the model that can be "
            f"quantised. Those are: {_some(c.name for c in able)}. A pattern is matched against "
            f"whole names, and against the names of the modules around a layer; * stands for "
            f"anything, dots included."
        )


def check_any(candidates: Sequence[Candidate]) -> None:
    """Raise ``UserError`` for a model of which nothing can be quantised."""
    if all(candidate.obstacle for candidate in candidates):
        why = _reasons(candidates) or "no module of it holds a matrix"
        raise UserError(f"The model has no layer that can be quantised: {why}.")


def check_filter(
    filter: Filter | None, decisions: Mapping[Candidate, tuple[Format | None, str]]
) -> None:
    """Raise ``UserError`` for a filter that takes no layer, or only such as cannot be quantised."""
    able = {c.name: reason for c, (_, reason) in decisions.items() if not c.obstacle}
    if filter is None or any(reason != _LEFT_OUT for reason in able.values()):
        return
    unable = [c for c in decisions if c.obstacle and filter(c.module, c.name)]
    if unable:
        raise UserError(
            f"The filter takes only layers that cannot be quantised: {_reasons(unable)}."
        )
    raise UserError(
        f"The filter takes no layer of the model that can be quantised. Those are: {_some(able)}. It is "
        "called as filter(module, name), and takes a layer by True."
    )


def check_head(model: nn.Module, head: Sequence[str]) -> None:
    """Raise ``UserError`` for a head pattern that matches no module."""
    names = [name for name, _ in model.named_modules() if name]
    for pattern in head:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"The task says that its head is {pattern!r}, but its model has no such "
                f"module. Modules are: {_some(names)}. Correct the task's `head`."
            )


def _reasons(unable: Sequence[Candidate]) -> str:
    return "; ".join(f"{c.name or '(root)'!r}: {c.obstacle}" for c in unable[:_SHOWN]) + (
        f"; and {len(unable) - _SHOWN} more" if len(unable) > _SHOWN else ""
    )


def _some(names: Iterable[str]) -> str:
    every = [name or "(root)" for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return (", ".join(every[:_SHOWN]) or "none") + more

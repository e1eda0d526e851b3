"""Presets of layers (``layers: mlp_only``): the groups of a task's layers, as rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.conversion.candidates import Candidate
from altgrad_core.quantization.conversion.rules import Rule

Groups = Mapping[str, Sequence[str]]


def group_rules(
    group: str,
    groups: Groups,
    candidates: Sequence[Candidate],
    format: Format | None,
    rest: Format | None,
) -> list[Rule]:
    """``format`` for the layers of ``group``, ``rest`` for all others.

    Raises ``UserError`` for a group that the task does not name, or that no layer is in.
    """
    patterns = groups.get(group, ())
    if not patterns:
        named = ", ".join(groups) or "none"
        raise UserError(
            f"quantization.layers: {group}_only picks the layers of the group {group!r}, and the task "
            f"names no such group; it names {named}. Use quantization.overrides."
        )
    rules = [Rule(pattern, format) for pattern in patterns]
    able = [candidate for candidate in candidates if not candidate.obstacle]
    if not any(rule.matches(candidate.names) for rule in rules for candidate in able):
        raise UserError(
            f"quantization.layers: {group}_only picks the layers {', '.join(patterns)}, and none that "
            "can be quantised is called so. Use quantization.overrides."
        )
    return [Rule("*", rest, f"layers: {group}_only, rest_format: null"), *rules]

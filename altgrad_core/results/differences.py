"""What tells two runs apart: their settings and versions, and how they ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from altgrad_core.results.stored import StoredRun, StoredSpec

_NAMES = {"id", "suite", "condition", "axes"}
"""Parts of a spec that name a run, rather than decide what it does."""
_SHOWN = 3
MISSING = "nothing"
"""What stands for a setting, or a metric, that one side lacks."""


def setting_differences(a: StoredSpec, b: StoredSpec) -> dict[str, tuple[str, str]]:
    """Dotted key -> the two values, as text, for each setting and version that differs.

    Only of what a :class:`StoredSpec` holds: two runs with different ids may differ in the rest of
    ``spec.yaml`` alone, and have no difference here.
    """
    return _apart(*(dict(_flat(one.model_dump(mode="json", exclude=_NAMES))) for one in (a, b)))


def outcome_differences(a: StoredRun, b: StoredRun) -> dict[str, tuple[str, str]]:
    """What differs in how two runs ended: name -> the two values as text."""
    return _apart(_outcome(a), _outcome(b))


def _outcome(run: StoredRun) -> dict[str, str]:
    """Status, step and final metrics, those of the test split first, with all their digits."""
    kinds, series = run.history.kinds, run.history.series
    names = [name for name, kind in kinds.items() if kind == "final"]
    names.sort(key=lambda name: not name.startswith("final/test/"))
    ended = {"status": str(run.status.status), "step": str(run.status.step)}
    return ended | {name: repr(float(series[name][max(series[name])])) for name in names}


def _apart(left: dict[str, str], right: dict[str, str]) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys((*left, *right))
    pairs = {name: (left.get(name, MISSING), right.get(name, MISSING)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def in_words(differences: dict[str, tuple[str, str]]) -> str:
    """``training.learning_rate: 0.001 and 0.003; …``: the first few, and how many more there are."""
    shown = [f"{name}: {a} and {b}" for name, (a, b) in list(differences.items())[:_SHOWN]]
    more = len(differences) - len(shown)
    return "; ".join([*shown, f"{more} more"] if more else shown)


def _flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, (*path, str(key)))
    else:
        yield ".".join(path), _text(value)


def _text(value: Any) -> str:
    """A value as text; a whole number is the same with and without a decimal point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)

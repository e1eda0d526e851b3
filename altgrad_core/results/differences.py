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
    left, right = (dict(_flat(spec.model_dump(mode="json", exclude=_NAMES))) for spec in (a, b))
    keys = dict.fromkeys((*left, *right))
    pairs = {key: (left.get(key, MISSING), right.get(key, MISSING)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def final_metrics(run: StoredRun) -> dict[str, float]:
    """The final metrics of a run by name, those of the test split first; none if it ended early."""
    kinds, series = run.history.kinds, run.history.series
    names = [name for name, kind in kinds.items() if kind == "final"]
    names.sort(key=lambda name: not name.startswith("final/test/"))
    return {name: series[name][max(series[name])] for name in names}


def outcome(run: StoredRun) -> dict[str, str]:
    """How a run ended, as texts that are equal only if nothing differs: status, step, final metrics.

    Numbers are written with all their digits, so that equal texts are equal bits (but for the bits
    of a NaN).
    """
    status = {"status": run.status.status, "step": str(run.status.step)}
    return status | {name: repr(float(value)) for name, value in final_metrics(run).items()}


def outcome_differences(a: StoredRun, b: StoredRun) -> dict[str, tuple[str, str]]:
    """What differs between two :func:`outcome`\\ s: name -> the two values as text."""
    left, right = outcome(a), outcome(b)
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

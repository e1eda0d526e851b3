"""What tells two runs apart: their settings and versions, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from altgrad_core._axis import axis_text
from altgrad_core.results.kept import StoredSpec
from altgrad_core.results.stored import StoredRun

_NAMES = {"id", "suite", "condition", "axes"}
"""Parts of a spec that name a run, rather than decide what it does."""
MISSING = "nothing"
"""What stands for a setting, or a metric, that one side lacks."""


def setting_differences(a: StoredSpec, b: StoredSpec) -> dict[str, tuple[str, str]]:
    """Dotted key -> the two values, as text, for each setting and version that differs.

    Only of what a :class:`StoredSpec` holds: two runs with different ids may differ in the rest of
    ``spec.yaml`` alone, and have no difference here.
    """
    return differing(*(flat(one.model_dump(mode="json", exclude=_NAMES)) for one in (a, b)))


def outcome_differences(a: StoredRun, b: StoredRun) -> dict[str, tuple[str, str]]:
    """What differs in how two runs ended: name -> the two values as text."""
    return differing(_outcome(a), _outcome(b))


def _outcome(run: StoredRun) -> dict[str, str]:
    """Status, step and final metrics, those of the test split first, with all their digits."""
    kinds, series = run.history.kinds, run.history.series
    names = [name for name, kind in kinds.items() if kind == "final"]
    names.sort(key=lambda name: not name.startswith("final/test/"))
    ended = {"status": str(run.status.status), "step": str(run.status.step)}
    return ended | {name: repr(float(series[name][max(series[name])])) for name in names}


def differing(left: Mapping[str, str], right: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What two sets of texts have differently; :data:`MISSING` for what one lacks."""
    names = dict.fromkeys((*left, *right))
    pairs = {name: (left.get(name, MISSING), right.get(name, MISSING)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def in_words(differences: Mapping[str, tuple[str, str]]) -> str:
    """``training.learning_rate: 0.001 and 0.003; …``: the first few, and how many more there are."""
    return some([f"{name}: {a} and {b}" for name, (a, b) in differences.items()], before="")


def some(cases: Sequence[str], most: int = 3, before: str = "and ") -> str:
    """``a; b; c; and 2 more``: the first few cases."""
    more = [f"{before}{len(cases) - most} more"] if len(cases) > most else []
    return "; ".join([*cases[:most], *more])


def flat(settings: Mapping[str, object], path: str = "") -> dict[str, str]:
    """Dotted key as suites write it -> text, of the settings of a run."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        where = f"{path}.{name}" if path else name
        if name in ("task", "optimizer") and not path and isinstance(value, Mapping):
            found[name] = str(value["name"])
            found |= flat(value["settings"], "" if name == "task" else name)
        elif name == "monitors" and isinstance(value, list | tuple):
            found |= {f"{where}.{one['name']}": axis_text(one["settings"]) for one in value}
        elif isinstance(value, Mapping) and value and "name" not in value:
            found |= flat(value, where)
        else:
            found[where] = axis_text(value)
    return found

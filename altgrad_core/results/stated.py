"""The contrast of results that came without one: the usual one, or what a user states."""

from __future__ import annotations

from dataclasses import replace

from altgrad_core._axis import OPTIMIZER_AXIS, axis_text, meant
from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import primary_column
from altgrad_core.results.kept import Contrast
from altgrad_core.results.merge import plan_of_runs
from altgrad_core.results.stored import StoredSuite


def usual_contrast(suite: StoredSuite) -> Contrast | None:
    """Between the two optimizers of the runs, the first of which is the baseline; None if not two.

    This is what planning takes where a suite declares nothing, see :mod:`altgrad_core.planning.suite`.
    """
    values = _values(suite, OPTIMIZER_AXIS)
    if len(values) != 2:
        return None
    return Contrast(
        axis=OPTIMIZER_AXIS,
        baseline=values[0],
        treatment=values[1],
        metric=primary_column(suite.metrics),
    )


def with_contrast(suite: StoredSuite, stated: str) -> StoredSuite:
    """The suite with the contrast ``AXIS=BASELINE,TREATMENT``, e.g. ``optimizer.type=adamw,lion``.

    The metric and the margin stay as they were declared. Raises ``UserError`` for another form, or
    an axis or value that the results do not have.
    """
    axis, given, rest = (part.strip() for part in stated.partition("="))
    if not given or "," not in rest:
        raise _malformed(stated)
    known = dict.fromkeys(axis for axes in _all_axes(suite) for axis in axes)
    if axis not in known:
        raise UserError(
            f"The results have no axis {axis!r}; they have {', '.join(known) or 'none'}."
        )
    values = _values(suite, axis)
    sides = _sides(rest, values)
    if not all(sides) or sides[0] == sides[1]:
        raise _malformed(stated)
    for side in sides:
        if side not in values:
            raise UserError(f"No result has {axis}={side}; there are {', '.join(values)}.")
    plan = suite.plan or plan_of_runs(suite)
    old = plan.contrast.model_dump() if plan.contrast is not None else {}
    sides_and_axis = {"axis": axis, "baseline": sides[0], "treatment": sides[1]}
    metric = old.get("metric") or primary_column(suite.metrics)
    contrast = Contrast(**{**old, **sides_and_axis, "metric": metric})
    return replace(suite, plan=plan.model_copy(update={"contrast": contrast}))


def _sides(text: str, values: list[str]) -> tuple[str, str]:
    """The two values in ``A,B``; a value may have commas of its own: ``exmy (bits=6, bias=3)``."""
    commas = [place for place, letter in enumerate(text) if letter == ","]
    pairs = [(text[:place].strip(), text[place + 1 :].strip()) for place in commas]
    found = [(meant(a, values), meant(b, values)) for a, b in pairs]
    return next((pair for pair in found if set(pair) <= set(values)), found[0])


def _malformed(stated: str) -> UserError:
    return UserError(
        f"A contrast is AXIS=BASELINE,TREATMENT, such as {OPTIMIZER_AXIS}=adamw,lion; "
        f"{stated!r} is not."
    )


def _all_axes(suite: StoredSuite) -> list[dict[str, object]]:
    cells = suite.plan.cells if suite.plan is not None else ()
    return [*(cell.axes for cell in cells), *(run.spec.axes for run in suite.runs)]


def _values(suite: StoredSuite, axis: str) -> list[str]:
    """The values on an axis, as texts, in order of appearance."""
    return list(dict.fromkeys(axis_text(axes[axis]) for axes in _all_axes(suite) if axis in axes))

"""The metric that a suite's contrast or tuning names, looked up in what its task declares."""

from __future__ import annotations

from collections.abc import Sequence

from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import CORE, Metric, Split, column, declared, primary_column
from altgrad_core.registry.problems import nearest, unknown


def named(given: str | None, metrics: Sequence[Metric], split: Split) -> str:
    """The column of the metric that a user named, or of the primary one where ``given`` is None.

    A bare name (``perplexity``) means its final value on ``split``. Raises ``UserError`` for a name
    that is not declared, with the nearest one.
    """
    if given is None:
        return primary_column(metrics, split)
    full = given if "/" in given else f"final/{split}/{given}"
    if declared(full, metrics) is not None and (full.startswith("final/") or "@" in full):
        return full
    allowed = [column(metric, split) for metric in metrics]
    allowed += [] if split == "validation" else [f"{name}@last" for name in CORE]
    bare = nearest(full.rpartition("/")[2], [metric.name for metric in metrics])
    guess = next((name for name in allowed if bare and name == f"final/{split}/{bare}"), None)
    if guess is None:
        raise UserError(unknown("metric", given, allowed))
    names = ", ".join(allowed)
    raise UserError(f"unknown metric {given!r}. Did you mean {guess!r}? Allowed: {names}.")

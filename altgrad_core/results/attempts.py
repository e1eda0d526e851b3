"""What one run was made on, attempt by attempt: ``environment.json`` keeps every one.

The file describes the latest attempt. ``step`` is the step that it went on from (0: none; null: it has not begun yet),
``attempts`` how many in a row were of this description, and ``earlier`` holds the descriptions before it, oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from altgrad_core.results.differences import differing

MICRO_BATCHES = "micro_batches"
"""How many parts each batch was cut into for want of memory; not there where it was not."""
_OWN = ("step", "attempts", "earlier")
_PLAIN = ("python", "device", "device_name", "cuda", "threads")
_VERSIONS = ("packages", "distributions")


def with_attempt(
    before: Mapping[str, Any], now: Mapping[str, Any], step: int | None
) -> dict[str, Any]:
    """``environment.json`` for an attempt that goes on from ``step``; ``before`` is what it held."""
    earlier = list(before.get("earlier", ()))
    if before.get("step", 0) is None:  # it ended before it began, and has no part in the numbers
        before = earlier.pop() if earlier else {}
    described = {key: value for key, value in before.items() if key not in _OWN}
    count = 1
    if step is not None and described == dict(now):
        count += int(before.get("attempts", 1))
        step = min(step, int(before.get("step", 0)))
    elif described:
        earlier.append({key: value for key, value in before.items() if key != "earlier"})
    return {**now, "step": step, "attempts": count, "earlier": earlier}


def changes(environment: Mapping[str, Any]) -> list[str]:
    """What changed on the way of a run that went on: ``torch 2.10.0, from step 40 on 2.11.0``.

    Attempts before the last one that began at the first step have no part in it.
    """
    found: list[str] = []
    for one, other in pairwise(_counting(environment)):
        apart = differing(made_on(one), made_on(other))
        step = other.get("step", 0)
        found += [f"{name} {a}, from step {step} on {b}" for name, (a, b) in apart.items()]
    return found


def made_on(attempt: Mapping[str, Any]) -> dict[str, str]:
    """What of an environment can change numbers, as texts by name.

    Versions, commit, device, threads, and the parts that batches were cut into.
    """
    found = {name: str(attempt[name]) for name in _PLAIN if attempt.get(name) is not None}
    found[MICRO_BATCHES] = str(parts_of_batches(attempt))
    for name in _VERSIONS:
        found |= {str(key): str(value) for key, value in (attempt.get(name) or {}).items()}
    git = attempt.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        found["commit"] = str(git["commit"])
    return found


def parts_of_batches(environment: Mapping[str, Any]) -> int:
    """How many parts each batch was cut into, whose gradients were added up."""
    return int(environment.get(MICRO_BATCHES) or 1)


def _counting(environment: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    every: list[Mapping[str, Any]] = [*environment.get("earlier", ()), environment]
    first = max((n for n, one in enumerate(every) if not one.get("step", 0)), default=0)
    return every[first:]

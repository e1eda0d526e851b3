"""Several formats, one question: p-values adjusted by Holm over the distinct hypotheses.

With seven formats and no effect in any, a test at 0.05 for each finds "an effect" somewhere in up
to 30 % of reports. Holm's step-down keeps the chance of even one false finding at α, whatever the
dependence between the tests, which matters here: formats share seeds.

Formats whose grids are equal up to their scale (an A/A pair) are the same hypothesis under two
names. Counting it twice would punish every other format, so each such class enters once, with the
*largest* of its members' p: they are the same number where the arithmetic is, and where they are
not, the cautious one decides.

The family is what was *planned*. A hypothesis that cannot be tested (p NaN: one seed, or all
differences equal) still counts in the family, or a failed run would sharpen the others' tests.

Source: Holm 1979, *Scandinavian Journal of Statistics* 6, 65-70. ``statsmodels`` has it too
(``multipletests``) and is the tests' witness; it is not worth a dependency of a report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence


def equal_classes(
    names: Iterable[str], equal_pairs: Iterable[tuple[str, str]]
) -> tuple[tuple[str, ...], ...]:
    """``names`` in classes of equals (the transitive closure of the pairs), in order of appearance.

    A pair with a name that is not among ``names`` joins nothing by itself, but equality passes
    through it: from a = x and x = b follows a = b whether or not x was run.
    """
    known = tuple(dict.fromkeys(names))
    leader = {name: name for name in known}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for a, b in equal_pairs:
        leader[find(b)] = find(a)
    classes: dict[str, list[str]] = {}
    for name in known:
        classes.setdefault(find(name), []).append(name)
    return tuple(map(tuple, classes.values()))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given.

    With ``p(1) ≤ … ≤ p(m)``: ``adjusted(i) = min(1, max over j ≤ i of (m − j + 1) · p(j))``.
    Rejecting where ``adjusted ≤ α`` keeps the family-wise error at α. A NaN counts in m, stays
    NaN, and is rejected by nobody.

    Raises:
        ValueError: For a p outside [0, 1].
    """
    if not all(math.isnan(p) or 0 <= p <= 1 for p in p_values):
        raise ValueError(f"a p-value lies between 0 and 1: {list(p_values)}")
    m = len(p_values)
    adjusted = [math.nan] * m
    tested = (index for index in range(m) if not math.isnan(p_values[index]))
    reached = 0.0
    for step, index in enumerate(sorted(tested, key=lambda index: p_values[index])):
        reached = max(reached, min(1.0, (m - step) * p_values[index]))
        adjusted[index] = reached
    return tuple(adjusted)


def holm_over_distinct(
    p_values: Mapping[str, float], equal_pairs: Iterable[tuple[str, str]] = ()
) -> dict[str, float]:
    """Each group's p, adjusted by :func:`holm` over the classes of :func:`equal_classes`.

    ``p_values`` holds every planned group, with NaN where there was nothing to test. A class has
    the largest p of its members; its adjusted p is given to each member that has a p of its own.

    Raises:
        ValueError: For a p outside [0, 1].
    """
    classes = equal_classes(p_values, equal_pairs)
    adjusted = holm([_largest(p_values[name] for name in members) for members in classes])
    return {
        name: math.nan if math.isnan(p_values[name]) else value
        for members, value in zip(classes, adjusted, strict=True)
        for name in members
    }


def _largest(values: Iterable[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=math.nan)

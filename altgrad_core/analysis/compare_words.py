"""What two sets of results say against each other, in sentences that claim no more than the numbers."""

from __future__ import annotations

from altgrad_core.analysis.changes import SPEED, SetComparison
from altgrad_core.analysis.numbers import counted, listed, significant
from altgrad_core.analysis.paired import smallest_sign_flip_p

_SHOWN = 5
"""Cases that a sentence spells out; the others are counted."""
_LEVEL = 0.05


def sentences(found: SetComparison) -> tuple[str, ...]:
    """What a reader must know before the numbers, weightiest first."""
    said = [
        _identity(found),
        *_changed(found),
        _settings(found),
        _divergence(found),
        _speed(found),
        _few(found),
        *_missing(found),
    ]
    return tuple(sentence for sentence in said if sentence)


def _identity(found: SetComparison) -> str:
    """How many pairs are one run twice, and how many of these ended the same."""
    total = counted(len(found.pairs), "pair")
    same = [pair for pair in found.pairs if pair.same]
    if not same:
        return f"{total} of runs; no run of one set has the id of a run of the other."
    identical = sum(pair.identical for pair in same)
    head = f"{total} of runs, {len(same)} with the same id on both sides. "
    if identical == len(same):
        which = "All of these" if identical > 1 else "It"
        return head + f"{which} ended the same: status, step and every digit of every final metric."
    return head + (
        f"{identical} of these ended the same (status, step and every digit of every final metric); "
        f"{len(same) - identical} did not, though settings, data and plugin versions are the same."
    )


def _changed(found: SetComparison) -> list[str]:
    """Pairs of one run that ended differently, with the first difference of each."""
    changed = [pair for pair in found.pairs if pair.same and not pair.identical]
    if not changed:
        return []
    cases = []
    for pair in changed[:_SHOWN]:
        name, (a, b) = next(iter(pair.differences.items()))
        cases.append(f"{pair.condition} seed {pair.seed} ({name}: {a} and {b})")
    return [f"Same id, another end: {_some(cases, len(changed))}."]


def _settings(found: SetComparison) -> str:
    """What differs between the runs of pairs with different ids."""
    other = sum(not pair.same for pair in found.pairs)
    if not other:
        return ""
    cases = [
        f"{key} ({a} and {b}, in {counted(times, 'pair')})"
        for (key, a, b), times in sorted(found.settings.items(), key=lambda item: -item[1])
    ]
    if found.unexplained:
        cases.append(f"other settings of spec.yaml (in {counted(found.unexplained, 'pair')})")
    return (
        f"{counted(other, 'pair')} of runs with different ids: what differs there is "
        f"{_some(cases[:_SHOWN], len(cases))}."
    )


def _divergence(found: SetComparison) -> str:
    a, b = (sum(pair.diverged[side] for pair in found.pairs) for side in (0, 1))
    if not a and not b:
        return ""
    return (
        f"Diverged runs count as the worst score: {a} of {found.names[0]}, {b} of {found.names[1]}."
    )


def _speed(found: SetComparison) -> str:
    """Whose samples/s are compared."""
    if SPEED not in found.metrics:
        return ""
    a, b = found.devices
    if a and set(a) == set(b):
        return (
            f"Samples/s were measured on {listed(a)} both times. Runs that share a device slow each "
            "other, which the differences contain."
        )
    sides = " and on ".join(listed(side) if side else "an unknown device" for side in (a, b))
    return f"Samples/s were measured on {sides}: their difference is that of the devices, too."


def _few(found: SetComparison) -> str:
    """What few pairs cannot show."""
    n = min((change.summary.n for change in found.changes if change.summary.n), default=0)
    if n == 1:
        return (
            "Where there is one pair, its difference has no interval, and cannot be told from what "
            "another seed would have given."
        )
    floor = smallest_sign_flip_p(n)
    if floor <= _LEVEL:
        return ""
    return f"The sign-flip test of {n} pairs has no p below {significant(floor)}."


def _missing(found: SetComparison) -> list[str]:
    said = [
        f"In {name} alone: {_some(only[:_SHOWN], len(only))}."
        for name, only in zip(found.names, found.only, strict=True)
        if only
    ]
    cases = [
        f"{condition} ({'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))})"
        for condition, seeds in found.unpaired.items()
    ]
    if cases:
        said.append(f"Without a partner: {_some(cases[:_SHOWN], len(cases))}.")
    return said


def _some(cases: list[str] | tuple[str, ...], total: int) -> str:
    more = total - len(cases)
    return "; ".join([*cases, *([f"and {more} more"] if more > 0 else [])])

"""Each group of the contrast with everything that may be said of it: tests, power, censoring.

The family of the tests is every planned group of the contrast, but for the placebos, which are
controls and have no verdict. Groups that differ in nothing but the name of their grid are one
hypothesis. A *censored* group, one side of which has its best learning rate on an edge of the
tuned grid, has no difference that means anything: it counts in the family and is tested by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from altgrad_core.analysis.contrast import Delta
from altgrad_core.analysis.paired import PairedSummary, paired_summary
from altgrad_core.analysis.power import SeedPlan, plan_seeds
from altgrad_core.analysis.small_samples import cautions
from altgrad_core.analysis.verdicts import Assessment, assess
from altgrad_core.results.stored import StoredTuning

ALPHA = 0.05
"""The level of a report's tests; its intervals are those of 1 − ``ALPHA``."""


@dataclass(frozen=True)
class Comparison:
    """One group: its differences, and what they bear.

    Attributes:
        delta: The differences, seed by seed.
        assessment: Tests and verdict; of no differences where the group is censored.
        seeds: What to plan with at the first hurdle of Holm; None without a spread.
        censored: Why there is no number, where a side's best learning rate lies on an edge.
    """

    delta: Delta
    assessment: Assessment
    seeds: SeedPlan | None
    censored: str = ""

    @property
    def group(self) -> str:
        """The group's name."""
        return self.delta.group

    @property
    def summary(self) -> PairedSummary:
        """The differences, positive where the treatment is better."""
        return self.assessment.summary

    @property
    def identical(self) -> bool:
        """Whether both sides have the same score in each of two or more seeds, without divergence."""
        return (
            self.summary.n > 1
            and not self.delta.diverged
            and all(pair.delta == 0 for pair in self.delta.pairs)
        )

    @property
    def interval(self) -> tuple[float, float]:
        """The t interval of treatment − baseline, in the units of the metric."""
        low, high = self.summary.low, self.summary.high
        return (low, high) if self.delta.sign > 0 else (-high, -low)

    def cautions(self) -> tuple[str, ...]:
        """What a reader of this group's numbers must know."""
        if self.censored:
            return ()
        family = self.assessment.family
        return cautions(self.summary, alpha=ALPHA, family=family, diverged=self.delta.diverged)


def compare(
    deltas: Sequence[Delta],
    *,
    margin: float | None = None,
    same_grid: Iterable[tuple[str, str]] = (),
    tuning: StoredTuning | None = None,
) -> tuple[Comparison, ...]:
    """Test every group but the placebos, in the order given.

    ``margin`` is the smallest difference that matters, as the suite declares it; without one no
    group can be found equivalent. ``same_grid`` names formats with the same grid.
    """
    primary = [delta for delta in deltas if not delta.place.placebo]
    censored = {
        delta.group: censoring((*delta.place.baseline, *delta.place.treatment), tuning)
        for delta in primary
    }
    summaries = {
        delta.group: paired_summary(
            () if censored[delta.group] else delta.gains, confidence=1 - ALPHA
        )
        for delta in primary
    }
    pairs = equal_groups(primary, same_grid)
    found = assess(summaries, margin=margin, equal_pairs=pairs, alpha=ALPHA) if primary else {}
    return tuple(
        Comparison(
            delta=delta,
            assessment=found[delta.group],
            seeds=plan_seeds(
                summaries[delta.group], alpha=ALPHA / max(1, found[delta.group].family)
            ),
            censored=censored[delta.group],
        )
        for delta in primary
    )


def equal_groups(
    deltas: Iterable[Delta], same_grid: Iterable[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:
    """The pairs of groups that differ in nothing but the name of their grid.

    Equality passes through a format that was not run: see
    :func:`~altgrad_core.analysis.multiplicity.equal_classes`.
    """
    known = list(deltas)
    settings = dict.fromkeys(delta.place.setting for delta in known)
    names = {(delta.place.setting, delta.place.format): delta.group for delta in known}
    return tuple(
        (names.get((setting, a), f"{setting}: {a}"), names.get((setting, b), f"{setting}: {b}"))
        for setting in settings
        for a, b in same_grid
    )


def censoring(conditions: Iterable[str], tuning: StoredTuning | None) -> str:
    """``censored (best rate at the edge, lr=0.001)`` if any of the conditions is; else empty.

    The best learning rate of such a condition lies on an edge of the tuned grid, so that nobody knows
    how well it would have done at its own best rate.
    """
    if tuning is None:
        return ""
    chosen = (tuning.conditions.get(name) for name in conditions)
    rates = [one.chosen for one in chosen if one is not None and one.censored]
    if not rates:
        return ""
    shown = ", ".join(f"{rate:g}" for rate in dict.fromkeys(rates))
    return f"censored (best rate at the edge, lr={shown})"

"""The verdict: a paragraph that says what the tables carry, and nothing more.

In this order: a broken instrument, an unfinished suite or comparisons that are refused end it; then
what both sides do not share; then the answer. A format is said to gain most only where it is shown to
benefit, to gain more than the reference, and to gain more than every other one. The largest gain that
was seen is always quantified. What limits the claim follows: divergence, placebos, few seeds, the
error of the test set, learning rates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from altgrad_core.analysis.family import Family, Row, number_or
from altgrad_core.analysis.limits import beyond_margin, divergence, limits
from altgrad_core.analysis.statistics import ALPHA, MIN_SEEDS
from altgrad_core.analysis.words import (
    LEVEL,
    counted,
    interval_text,
    quoted,
    score,
    sides,
    significant,
)
from altgrad_core.interfaces.section import Question


@dataclass(frozen=True)
class Progress:
    """How many runs can be made, and how many of them have a result."""

    planned: int
    done: int
    live: bool = False
    """Whether they are being watched: then nothing is tested, however many there are."""

    @property
    def complete(self) -> bool:
        """Whether all have one, and nobody looks before."""
        return self.done == self.planned > 0 and not self.live


def verdict_of(
    question: Question | None,
    effects: pd.DataFrame,
    twins: pd.DataFrame,
    progress: Progress,
    tuned: bool,
    exploratory: Sequence[str] = (),
) -> tuple[str, ...]:
    """The paragraph, in sentences.

    ``effects`` and ``twins`` are the tables, ``tuned`` says whether learning rates were tuned for each
    condition, ``exploratory`` why this is not the question that was declared.
    """
    if question is None:
        return ("The suite declares no contrast, so no format can be said to benefit.",)
    rows: list[Row] = [dict(row) for row in effects.to_dict("records")]
    said = _Verdict(question, rows, twins, progress, tuned).sentences()
    head = f"Exploratory, not confirmatory: {'; '.join(exploratory)}."
    return (head, *said) if exploratory else said


@dataclass(frozen=True)
class _Verdict(Family):
    twins: pd.DataFrame
    progress: Progress
    tuned: bool

    def sentences(self) -> tuple[str, ...]:
        """The whole paragraph."""
        if not self.rows:
            return (
                f"No group of the suite has both sides of {sides(self.question)}: there is no verdict.",
            )
        if broken := self.broken():
            return (broken,)
        if not self.progress.complete:
            return tuple(self.unfinished())
        return (*self.answer(), *limits(self, tuned=self.tuned))

    def broken(self) -> str:
        """That the instrument fails its own control; empty where it does not."""
        differ = self.twins[self.twins["status"] == "differ"]
        if not len(differ):
            return ""
        worst = differ.iloc[int(differ["difference"].abs().to_numpy().argmax())]
        return (
            f"The instrument is not trustworthy: {worst['formats']} are the same grid up to a power "
            "of two and all scales are powers of two, so their runs must be equal, but "
            f"{len(differ)} of {counted(len(self.twins), 'comparison')} differ, by up to "
            f"{score(abs(worst['difference']))} ({worst['setting']}, seed {worst['seed']}). No "
            "difference in this report is to be believed until that is explained."
        )

    def unfinished(self) -> Iterator[str]:
        """How far the suite is, and estimates; no verdict."""
        done, planned = self.progress.done, counted(self.progress.planned, "planned run")
        when = "before all have" if done < self.progress.planned else "on a page that is watched"
        yield (
            f"No verdict yet: {done} of {planned} have a result, and nothing is tested {when}. "
            f"{self.head}, so far: {_small(self.largest())}"
        )
        yield from self.differences()
        yield from divergence(self)

    def answer(self) -> Iterator[str]:
        """What was asked, as far as it is shown."""
        yield from self.refused()
        if not self.judged:
            yield from self.nothing()
            return
        yield from self.differences()
        benefit, few = self.of("benefit"), self.of("too few seeds")
        clean = [row for row in benefit if not row["confounds"]]
        if len(few) == len(self.judged):
            low, high = (int(end(row["n"] for row in few)) for end in (min, max))
            seeds = f"{low}" if low == high else f"{low} to {high}"
            yield (
                f"Nothing can be shown with {seeds} seed{'' if seeds == '1' else 's'}: at least "
                f"{MIN_SEEDS} are needed. {self.head}: {_small(self.largest())}"
            )
            yield from self.identical()
            return
        if clean:
            yield from self.benefit(clean)
        elif benefit:
            yield (
                f"{self.head}: the treatment scores better in {self.names(benefit)}, but since more "
                "than the treatment differs, no benefit of it is shown."
            )
            yield self.largest()
        else:
            yield from self.no_benefit()
        yield from self.others(benefit=bool(benefit))

    def refused(self) -> Iterator[str]:
        """What is not compared at all, and why."""
        for code, word in (("refused", "is refused"), ("censored", "is censored")):
            for why, rows in _by(self.of(code), "why").items():
                yield f"The comparison in {self.names(rows)} {word}: {why}."

    def nothing(self) -> Iterator[str]:
        """There is no group with a difference."""
        if self.tested:
            empty = self.of("nothing to test")
            yield f"{self.head}: no {self.noun} has a difference that can be judged."
            for why, rows in _by(empty, "why").items():
                yield f"{_capital(self.names(rows))}: {why}."
        else:
            yield f"{self.head}: every {self.noun} is a control, so there is nothing to test."
        yield from self.identical()

    def differences(self) -> Iterator[str]:
        """What else differs between the two sides."""
        for text, rows in _by([r for r in self.judged if r["confounds"]], "confounds").items():
            yield (
                f"The two sides differ in more than {self.question.axis} "
                f"({self.names(rows)}: {text}): what makes a difference there cannot be told."
            )

    def benefit(self, rows: Sequence[Row]) -> Iterator[str]:
        """Which groups are shown to benefit, whether for their grid, and which most."""
        top = rows[0]
        need = [row for row in rows if row["needs_grid"] == "yes"]
        named = next((r for r in need if r["best"] and r["best_p"] <= ALPHA), None)
        count = f"{len(rows)} of {counted(len(self.tested), self.noun)}"
        if named is not None:
            yield (
                f"{quoted(named['group'])} gains most from {sides(self.question)}, and because of its grid: "
                f"{self.evidence(named)}; beyond the reference {quoted(named['reference_group'])} "
                f"{_excess(named)}; and it gains more than every other {self.noun} "
                f"(p {significant(named['best_p'])})."
            )
            if rest := [row for row in rows if row is not named]:
                yield f"Also shown to benefit: {self.names(rest)}."
            yield from beyond_margin(self, named)
        else:
            yield (
                f"{self.question.treatment} is shown to benefit {count} over "
                f"{self.question.baseline} in {self.question.declared.label}: {self.names(rows)}. "
                f"The largest gain shown is in {quoted(top['group'])}: {self.evidence(top)}."
            )
            yield from beyond_margin(self, top)
            yield from self.not_named(rows, need)

    def not_named(self, rows: Sequence[Row], need: Sequence[Row]) -> Iterator[str]:
        """Why no group is said to gain most because of its grid."""
        first = max(need or rows, key=lambda row: number_or(row["excess"], -math.inf))
        codes = {row["needs_grid"] for row in rows}
        if codes == {"no reference"}:
            yield "The suite has no reference (bf16 or fp32): it cannot tell what needs the grid."
        else:
            head = "That any of it needs the grid is not shown"
            if need:
                head = f"That it needs the grid is shown in {self.names(need)}"
            elif codes <= {"no", "no reference"}:
                head = "None of it needs the grid"
            reference = quoted(first["reference_group"])
            yield f"{head}: {quoted(first['group'])} gains {_excess(first)} than {reference}."
        best = self.judged[0]
        if len(self.tested) == 1:
            return
        if best["best_p"] <= ALPHA:
            if best is not rows[0]:
                yield self.largest()
            return
        tested = "not every one can be judged"
        if not math.isnan(best["best_p"]):
            tested = f"p {significant(best['best_p'])}"
        yield (
            f"Which {self.noun} gains most is not shown: the largest gain seen is "
            f"{self.seen(best)}, and that it is ahead of every other is not ({tested})."
        )

    def no_benefit(self) -> Iterator[str]:
        """No group is shown to benefit: whether that is a finding, or the data cannot tell."""
        open_ = self.of("undecided", "too few seeds", "nothing to test")
        margin = self.question.margin
        if not open_ and margin is not None and len(self.judged) == len(self.tested):
            yield f"No {self.noun} benefits beyond the margin of ±{score(margin)}: {self.head}."
        elif open_:
            yield f"The data cannot tell whether any {self.noun} benefits: {self.head}."
        else:
            yield f"No {self.noun} that can be judged benefits: {self.head}."
        best = self.judged[0]
        smallest = ""
        if tested := [r["p_holm"] for r in self.judged if not math.isnan(r["p_holm"])]:
            p = significant(min(tested))
            smallest = f"; the smallest p is {p} after Holm over {int(best['family'])}"
        what = f"No {self.noun} gains; the best difference is"
        if best["gain"] > 0:
            what = "The largest gain seen, not shown, is"
        yield f"{what} {self.seen(best)}{_needs(best)}{smallest}."
        if margin is None:
            yield "No margin was declared, so no effect can be called too small to matter."

    def others(self, *, benefit: bool) -> Iterator[str]:
        """What is said of the groups that are not shown to benefit."""
        harmed, same = self.of("harm"), self.of("equivalent")
        if harmed:
            worst = harmed[-1]
            most = f", most in {quoted(worst['group'])}" if len(harmed) > 1 else ""
            yield f"It does harm in {self.names(harmed)}{most}: {self.evidence(worst)}."
        if same and self.question.margin is not None:
            yield f"Effects beyond ±{score(self.question.margin)} are ruled out in {self.names(same)}."
        open_ = self.of("undecided", "too few seeds")
        if open_ and (benefit or harmed or same):
            yield f"For {self.names(open_)} the data cannot tell."
        for why, rows in _by(self.of("nothing to test"), "why").items():
            yield f"{_capital(self.names(rows))}: {why}, so nothing was tested."
        yield from self.identical()

    def identical(self) -> Iterator[str]:
        """The controls that are equal by construction."""
        same = [row for row in self.rows if row["role"] == "identical"]
        if same:
            yield (
                f"In {self.names(same)} both sides are the same by construction: on a uniform grid "
                "the stiffness is the same for every weight of a tensor."
            )


def _excess(row: Row) -> str:
    """``+0.0200 (95 % interval …, p 0.01) more``: beyond the reference."""
    tested = ""
    if not math.isnan(row["excess_p_holm"]):
        interval = interval_text(row["excess_low"], row["excess_high"])
        tested = f" ({LEVEL} interval {interval}, p {significant(row['excess_p_holm'])} after Holm)"
    return f"{score(row['excess'], signed=True)}{tested} more"


def _needs(row: Row) -> str:
    seeds = row["seeds_needed"]
    if math.isnan(seeds):
        return ""
    many = "more than 1000" if math.isinf(seeds) else f"{seeds:g}"
    return f"; an effect of that size calls for {many} seeds, where there are {int(row['n'])}"


def _by(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row[column]), []).append(row)
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]

"""The primary contrast: what the treatment gains in each group, tested and adjusted."""

from __future__ import annotations

import math
from pathlib import Path

from altgrad_core.analysis.comparison import Comparison
from altgrad_core.analysis.document import (
    Block,
    Bullets,
    Cell,
    HeatMap,
    Paragraph,
    Section,
    Table,
    cells,
)
from altgrad_core.analysis.figures import INTERVAL_CAPTION, comparison_row, forest_figure
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.numbers import NONE, counted, score, significant
from altgrad_core.analysis.tables import number_table
from altgrad_core.analysis.verdicts import reason
from altgrad_core.analysis.words import (
    LEVEL,
    group_names,
    group_noun,
    interval_text,
    metric_name,
    verdict_word,
)

TITLE = "Benefit: what does the treatment gain in each format?"


def section(found: Findings, folder: Path) -> Section:
    """Table and forest plot of the differences, the other scores, and what few seeds cannot show."""
    contrast = found.contrast
    if contrast is None:
        return Section(TITLE, [Paragraph("The suite declares no contrast.")])
    if not found.comparisons:
        text = f"No group of the suite has both values of {contrast.axis}: there is no difference."
        return Section(TITLE, [Paragraph(text)])
    blocks: list[Block] = [Paragraph(answer(found)), _table(found)]
    rows = [(_heading(one), comparison_row(one)) for one in found.comparisons]
    label = f"Δ {metric_name(found.metric)}"
    caption = f"{label}: {contrast.treatment} − {contrast.baseline}."
    if any(row.values for _, row in rows):
        caption += f" {INTERVAL_CAPTION}"
    figure = forest_figure(
        "delta", rows, caption, label, floor=found.floor or None, margin=found.margin
    )
    blocks.extend([figure] if figure is not None else [])
    heat = _heat(found)
    blocks.extend([heat] if heat is not None else [])
    if found.companions:
        blocks.append(_companions(found))
    return Section(TITLE, [*blocks, *_bullets(found)])


def _heading(one: Comparison) -> str:
    return one.delta.place.setting if one.delta.place.setting != one.group else ""


def answer(found: Findings) -> str:
    """How many groups have which verdict, in one sentence."""
    noun = group_noun(found)
    every = found.comparisons
    counts: dict[str, list[Comparison]] = {}
    for one in every:
        counts.setdefault(verdict_word(one), []).append(one)
    parts = [f"{word}: {len(some)} ({group_names(some, every)})" for word, some in counts.items()]
    return f"Of {counted(len(found.comparisons), noun)}, by verdict – {'; '.join(parts)}."


def _table(found: Findings) -> Table:
    contrast, margin = found.contrast, found.margin
    assert contrast is not None
    numbers = (
        contrast.baseline,
        contrast.treatment,
        f"Δ {metric_name(found.metric)}",
        f"{LEVEL} interval",
        "std",
        "Pairs",
        "Improved",
        "p (t)",
        "p (Holm)",
        "p (sign flips)",
        *(("p (TOST)",) if margin is not None else ()),
        "Seeds needed",
    )
    head = number_table((group_noun(found).capitalize(),), numbers)
    rows = tuple((*_row(one, margin is not None), _verdict_cell(one)) for one in found.comparisons)
    family = found.comparisons[0].assessment.family
    caption = (
        f"Δ = {contrast.treatment} − {contrast.baseline}, seed by seed. p (t): paired t test; p (Holm): "
        f"the same, adjusted over {family} distinct groups, which decides; p (sign flips): exact, not "
        "adjusted. "
        + (
            f"p (TOST): that the effect lies within the margin of ±{score(margin)}, adjusted by Holm."
            if margin is not None
            else "No margin was declared, so nothing can be called equivalent."
        )
        + " Seeds needed: to show the effect seen with 80 % power at the first hurdle of Holm "
        "(if it is as large – as small – as its interval allows)."
    )
    return Table((*head, *number_table(("Verdict",), ())), rows, caption)


def _row(one: Comparison, tost: bool) -> tuple[Cell, ...]:
    delta, summary, found = one.delta, one.summary, one.assessment
    n, planned = len(delta.pairs), len(delta.pairs) + len(delta.missing)
    pairs = str(n) if n == planned else f"{n} of {planned}"
    ends = (delta.group, score(delta.baseline.mean), score(delta.treatment.mean))
    if one.censored:
        return cells(*ends, one.censored, *[NONE] * 2, pairs, *[NONE] * (5 + tost))
    plan = one.seeds
    return cells(
        *ends,
        score(delta.delta.mean, signed=True),
        NONE if summary.degenerate else interval_text(*one.interval),
        score(delta.delta.std),
        pairs,
        f"{summary.improved} of {n}" if n else NONE,
        significant(summary.t_p),
        significant(found.adjusted_p),
        significant(summary.sign_flip_p) if n > 1 else NONE,
        *((significant(found.equivalence_p),) if tost else ()),
        NONE if plan is None else f"{plan.needed} ({plan.fewest}–{plan.most})",
    )


def _verdict_cell(one: Comparison) -> Cell:
    word = verdict_word(one)
    tones = {"harm": "bad", "censored": "bad"}
    return Cell(word, tone="bad" if tones.get(word) else "plain")


def _heat(found: Findings) -> HeatMap | None:
    """Differences by format and setting; None where nothing but formats varies."""
    places = {(o.delta.place.format, o.delta.place.setting): o for o in found.comparisons}
    formats = list(dict.fromkeys(fmt for fmt, _ in places))
    settings = list(dict.fromkeys(setting for _, setting in places))
    if len(formats) < 2 or len(settings) < 2:
        return None

    def value(one: Comparison | None) -> float:
        return math.nan if one is None or one.censored else one.delta.delta.mean

    def text(one: Comparison | None) -> str:
        if one is not None and one.censored:
            return "censored"
        return score(value(one), signed=True)

    return HeatMap(
        name="benefit",
        caption=f"Δ {metric_name(found.metric)} by setting and format.",
        rows=tuple(setting or NONE for setting in settings),
        columns=tuple(formats),
        values=tuple(tuple(value(places.get((f, s))) for f in formats) for s in settings),
        texts=tuple(tuple(text(places.get((f, s))) for f in formats) for s in settings),
        diverging=True,
    )


def _companions(found: Findings) -> Table:
    head = number_table(
        (group_noun(found).capitalize(),),
        tuple(f"Δ {metric_name(name)}" for name in found.companions),
    )
    by_group = {
        name: {delta.group: delta for delta in deltas} for name, deltas in found.companions.items()
    }
    rows = []
    for one in found.comparisons:
        others = [by_group[name][one.group].delta.mean for name in found.companions]
        shown = ["censored" if one.censored else score(value, signed=True) for value in others]
        rows.append(cells(one.group, *shown))
    caption = "The same differences under the other scores: described, not tested."
    return Table(head, tuple(rows), caption)


def _bullets(found: Findings) -> list[Block]:
    every = found.comparisons
    said: dict[str, list[Comparison]] = {}
    for one in every:
        for sentence in one.cautions():
            said.setdefault(sentence, []).append(one)
    open_ = [one for one in every if not one.censored]
    cautions = [
        sentence if len(some) == len(open_) else f"{_capital(group_names(some, every))}: {sentence}"
        for sentence, some in said.items()
    ]
    without: dict[tuple[int, ...], list[Comparison]] = {}
    for one in every:
        if one.delta.missing:
            without.setdefault(one.delta.missing, []).append(one)
    missing = [
        f"{_capital(group_names(some, every))}: no pair yet for {_seeds(seeds)}."
        for seeds, some in without.items()
    ]
    reasons = [
        f"{one.group}: {reason(one.assessment)}"
        for one in found.comparisons
        if one.assessment.verdict in ("benefit", "harm", "equivalent")
    ]
    items = (*reasons, *cautions, *missing)
    return [Bullets(items)] if items else []


def _capital(text: str) -> str:
    return f"All{text[3:]}" if text.startswith("all ") else text


def _seeds(seeds: tuple[int, ...]) -> str:
    numbers = [str(seed) for seed in seeds]
    return f"{'seed' if len(numbers) == 1 else 'seeds'} {', '.join(numbers)}"

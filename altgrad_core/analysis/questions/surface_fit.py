"""The benefit over exponent and mantissa bits at once, where formats of several widths were run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from altgrad_core.analysis.comparison import ALPHA, Comparison
from altgrad_core.analysis.document import Block, HeatMap, Paragraph, Table, cells
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.multiplicity import equal_classes
from altgrad_core.analysis.numbers import NONE, counted, score, significant, spread
from altgrad_core.analysis.surface import (
    INTERCEPT,
    NotIdentified,
    coefficients_over_seeds,
    least_squares,
)
from altgrad_core.analysis.tables import number_table
from altgrad_core.analysis.words import LEVEL, interval_text

EXPONENT, MANTISSA = "exponent bits", "mantissa bits"


def surface_blocks(found: Findings, settings: Sequence[str]) -> list[Block]:
    """A plane over both kinds of bits; nothing where all formats have one width."""
    formats = _formats(found, settings)
    if len({found.formats[fmt].bits for fmt in formats}) < 2:
        return []
    columns = {
        EXPONENT: [found.formats[fmt].exponent_bits for fmt in formats],
        MANTISSA: [found.formats[fmt].mantissa_bits for fmt in formats],
    }
    seeds = _by_seed(found, settings, formats)
    means = [spread(values[place] for values in seeds).mean for place in range(len(formats))]
    if not seeds:
        return [Paragraph("No seed has a benefit for every format, so no surface is fitted.")]
    try:
        fit = least_squares(means, columns)
        over_seeds = coefficients_over_seeds(seeds, columns, confidence=1 - ALPHA)
    except NotIdentified as error:
        return [Paragraph(f"No surface is fitted: {error}")]
    rows = []
    for term in fit.terms:
        summary = over_seeds[term.name]
        interval = NONE if summary.degenerate else interval_text(summary.low, summary.high)
        rows.append(
            cells(
                term.name,
                score(term.value, signed=True),
                score(term.error),
                significant(term.p),
                significant(term.partial_r) if term.name != INTERCEPT else NONE,
                interval,
                significant(summary.t_p),
            )
        )
    head = number_table(
        ("Term",),
        ("Value", "Error", "p", "Partial r", f"{LEVEL} interval over seeds", "p over seeds"),
    )
    caption = (
        f"Benefit = intercept + slopes · bits, least squares over {counted(len(formats), 'format')} "
        f"(R² {significant(fit.r_squared)}). Error and p: how far the formats lie off the plane. Over "
        "seeds: whether new seeds on these very formats would give the same slope."
    )
    return [Table(head, tuple(rows), caption), _heat(found, formats, means)]


def _formats(found: Findings, settings: Sequence[str]) -> list[str]:
    """Quantised formats with known bits and a result in every setting; one per distinct grid."""
    placed: dict[str, set[str]] = {}
    for one in found.compared:
        placed.setdefault(one.delta.place.format, set()).add(one.delta.place.setting)
    known = [
        fmt
        for fmt, numbers in found.formats.items()
        if numbers.scaled
        and math.isfinite(numbers.exponent_bits + numbers.mantissa_bits)
        and set(settings) <= placed.get(fmt, set())
        and settings
    ]
    return [members[0] for members in equal_classes(known, found.same_grid)]


def _by_seed(found: Findings, settings: Sequence[str], formats: Sequence[str]) -> list[list[float]]:
    """For each seed that has all of them, the benefit of every format, mean over settings."""
    places = {(o.delta.place.setting, o.delta.place.format): o for o in found.compared}
    groups = [[places[setting, fmt] for setting in settings] for fmt in formats]
    gains = [[_gains(one) for one in row] for row in groups]
    seeds = set.intersection(*(set(g) for row in gains for g in row)) if gains else set()
    return [[spread(g[seed] for g in row).mean for row in gains] for seed in sorted(seeds)]


def _gains(one: Comparison) -> dict[int, float]:
    return {pair.seed: one.delta.sign * pair.delta for pair in one.delta.pairs}


def _heat(found: Findings, formats: Sequence[str], means: Sequence[float]) -> HeatMap:
    numbers = [found.formats[fmt] for fmt in formats]
    exponents = sorted({int(n.exponent_bits) for n in numbers})
    mantissas = sorted({int(n.mantissa_bits) for n in numbers})
    cell = {
        (int(n.exponent_bits), int(n.mantissa_bits)): mean
        for n, mean in zip(numbers, means, strict=True)
    }
    values = tuple(tuple(cell.get((e, m), math.nan) for m in mantissas) for e in exponents)
    return HeatMap(
        name="surface",
        caption="The benefit by exponent and mantissa bits.",
        rows=tuple(f"E = {e}" for e in exponents),
        columns=tuple(f"M = {m}" for m in mantissas),
        values=values,
        texts=tuple(tuple(score(v, signed=True) for v in row) for row in values),
        diverging=True,
    )

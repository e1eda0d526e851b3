"""Whether the benefit goes along with a property of the formats, and how little that may mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from altgrad_core.analysis.association import Association, associations
from altgrad_core.analysis.comparison import Comparison
from altgrad_core.analysis.document import Block, Figure, Paragraph, Section, Table, cells
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.multiplicity import equal_classes
from altgrad_core.analysis.numbers import NONE, counted, listed, score, significant, spread
from altgrad_core.analysis.questions.surface_fit import surface_blocks
from altgrad_core.analysis.scatter import Cloud, plot_scatter
from altgrad_core.analysis.summary import column
from altgrad_core.analysis.surface import collinearity
from altgrad_core.analysis.tables import number_table
from altgrad_core.analysis.words import metric_name

TITLE = "Properties: what does the benefit go along with?"
_FEWEST = 3

MANTISSA, RANGE, SQNR = "mantissa bits", "range (binades)", "SQNR (dB)"
STEP_SNR, STALLS = "SNR of a step (dB)", "stall ratio"
_MEASURED = {STEP_SNR: "updates/all/snr_db@mean", STALLS: "flips/all/stall_ratio@mean"}


@dataclass(frozen=True)
class Benefits:
    """The benefit of each format: its mean over seeds, then over settings that all formats have.

    ``by_setting`` has them one by one. References (formats used at scale 1), censored groups and
    formats without a result are not in it.
    """

    settings: tuple[str, ...]
    by_setting: dict[str, dict[str, float]]
    mean: dict[str, float]


def section(found: Findings, folder: Path) -> Section:
    """Correlations of the benefit with each property, and the surface of two of them."""
    known = benefits(found)
    if len(known.mean) < _FEWEST:
        return Section(TITLE, [Paragraph(_too_few(found, known))])
    properties = format_properties(found, known)
    if not properties:
        text = "The numbers of the formats are not at hand, so nothing can be correlated."
        return Section(TITLE, [Paragraph(text)])
    tested = associations(known.mean, properties, found.same_grid)
    blocks: list[Block] = [
        Paragraph(_answer(tested)),
        _table(known, properties, tested),
        _values(known, properties),
    ]
    blocks.extend(_figure(found, known, properties))
    if len(known.settings) > 1:
        blocks.append(_by_setting(found, known, properties))
    blocks.append(Paragraph(_collinear(found, known, properties)))
    return Section(TITLE, [*blocks, *surface_blocks(found, known.settings)])


def benefits(found: Findings) -> Benefits:
    """The benefit of each format in the settings that all of them have."""
    rows: dict[str, dict[str, float]] = {}
    for one in found.compared:
        if _quantised(found, one):
            place = one.delta.place
            rows.setdefault(place.setting, {})[place.format] = one.summary.mean
    formats = list(dict.fromkeys(fmt for values in rows.values() for fmt in values))
    whole = [setting for setting, values in rows.items() if len(values) == len(formats)]
    mean = {fmt: spread(rows[s][fmt] for s in whole).mean for fmt in formats} if whole else {}
    return Benefits(tuple(whole), {setting: rows[setting] for setting in whole}, mean)


def format_properties(found: Findings, known: Benefits) -> dict[str, dict[str, float]]:
    """Property -> format -> value, of the properties that are known for any format.

    Step SNR and stall ratio are those of the baseline: they are what the treatment meets.
    """
    numbers = {fmt: found.formats[fmt] for fmt in known.mean if fmt in found.formats}
    properties = {
        MANTISSA: {fmt: one.mantissa_bits for fmt, one in numbers.items()},
        RANGE: {fmt: one.binades for fmt, one in numbers.items()},
        SQNR: {fmt: one.sqnr for fmt, one in numbers.items()},
    }
    for title, name in _MEASURED.items():
        properties[title] = _measured(found, known, name)
    return {
        title: values
        for title, values in properties.items()
        if any(math.isfinite(value) for value in values.values())
    }


def _measured(found: Findings, known: Benefits, name: str) -> dict[str, float]:
    done = found.done
    values = column(done, name)
    baseline: dict[str, set[str]] = {}
    for one in found.compared:
        if one.delta.place.setting in known.settings:
            baseline.setdefault(one.delta.place.format, set()).update(one.delta.place.baseline)
    return {
        fmt: spread(
            v for v in values[done["condition"].isin(list(names))].tolist() if math.isfinite(v)
        ).mean
        for fmt, names in baseline.items()
        if fmt in known.mean
    }


def _quantised(found: Findings, one: Comparison) -> bool:
    """Whether the group's format is scaled to its tensors; a reference is not."""
    numbers = found.formats.get(one.delta.place.format)
    return numbers is None or numbers.scaled


def _too_few(found: Findings, known: Benefits) -> str:
    text = (
        f"{counted(len(known.mean), 'quantised format')} with a benefit in the same settings: a "
        f"correlation needs {_FEWEST}, and to reach p 0.05 at least 5."
    )
    return text if found.contrast is not None else "The suite declares no contrast."


def _answer(tested: tuple[Association, ...]) -> str:
    n = max(one.correlation.n for one in tested)
    shown = [one for one in tested if one.adjusted_p <= 0.05]
    over = f"over {counted(n, 'distinct format')}"
    if shown:
        parts = [
            f"{one.property} (ρ {significant(one.correlation.spearman)}, p "
            f"{significant(one.adjusted_p)} after Holm over {len(tested)} properties)"
            for one in shown
        ]
        return (
            f"The benefit goes along with {listed(parts)} {over}. That is an association between "
            "formats that differ in several properties at once; it names no cause."
        )
    if n < 5:
        over += " (fewer than 5 cannot give a p of 0.05)"
    known = [one for one in tested if not math.isnan(one.correlation.spearman)]
    if not known:
        return f"No correlation is defined {over}: benefits or properties are all equal."
    best = max(known, key=lambda one: abs(one.correlation.spearman))
    return (
        f"No property is shown to go along with the benefit {over}; the strongest correlation is with "
        f"{best.property} (ρ {significant(best.correlation.spearman)}, p "
        f"{significant(best.adjusted_p)} after Holm over {len(tested)} properties)."
    )


def _table(
    known: Benefits,
    properties: Mapping[str, Mapping[str, float]],
    tested: tuple[Association, ...],
) -> Table:
    rows = tuple(
        cells(
            one.property,
            str(one.correlation.n),
            significant(one.correlation.spearman),
            significant(one.correlation.spearman_p),
            significant(one.adjusted_p),
            significant(one.correlation.pearson),
            significant(one.correlation.pearson_p),
            "; ".join(" = ".join(names) for names in one.ambiguous) or NONE,
        )
        for one in tested
    )
    head = number_table(
        ("Property",),
        ("Formats", "Spearman ρ", "p", "p (Holm)", "Pearson r", "p of r", "Same grid, other value"),
    )
    over = "" if len(known.settings) == 1 else f", mean over {len(known.settings)} settings"
    caption = (
        f"Benefit: mean difference over seeds{over}. Each p counts permutations of the benefits over "
        "the formats; formats with the same grid enter once."
    )
    return Table(head, rows, caption)


def _values(known: Benefits, properties: Mapping[str, Mapping[str, float]]) -> Table:
    rows = tuple(
        cells(
            fmt,
            score(benefit, signed=True),
            *(_number(values.get(fmt, math.nan)) for values in properties.values()),
        )
        for fmt, benefit in known.mean.items()
    )
    caption = (
        "SQNR: of a normal tensor scaled by its largest value. Step SNR and stall ratio: of the "
        "baseline's runs."
    )
    return Table(number_table(("Format",), ("Benefit", *properties)), rows, caption)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else significant(value)


def _figure(
    found: Findings, known: Benefits, properties: Mapping[str, Mapping[str, float]]
) -> list[Block]:
    clouds = [
        Cloud(
            title="",
            xlabel=title,
            points=tuple(
                (fmt, values[fmt], benefit)
                for fmt, benefit in known.mean.items()
                if math.isfinite(values.get(fmt, math.nan))
            ),
        )
        for title, values in properties.items()
    ]
    label = f"gain in {metric_name(found.metric)}"
    each = tuple(
        plot_scatter([cloud], ylabel=label, columns=1, salt=f"properties-{number}")
        for number, cloud in enumerate(clouds)
    )
    whole = plot_scatter(clouds, ylabel=label, columns=3, salt="properties")
    return [Figure("properties", "The benefit of each format by its properties.", each, whole)]


def _by_setting(
    found: Findings, known: Benefits, properties: Mapping[str, Mapping[str, float]]
) -> Table:
    rows = []
    for setting, values in known.by_setting.items():
        tested = associations(values, properties, found.same_grid)
        rows.append(
            cells(setting or NONE, *(significant(one.correlation.spearman) for one in tested))
        )
    caption = "Spearman's ρ in each setting by itself: described, not tested."
    return Table(number_table(("Setting",), tuple(properties)), tuple(rows), caption)


def _collinear(
    found: Findings, known: Benefits, properties: Mapping[str, Mapping[str, float]]
) -> str:
    """How far the properties are one property, in words."""
    both = [properties[title] for title in (MANTISSA, RANGE) if title in properties]
    formats = [
        members[0]
        for members in equal_classes(known.mean, found.same_grid)
        if all(math.isfinite(values.get(members[0], math.nan)) for values in both)
    ]
    if len(both) < 2 or len(formats) < _FEWEST:
        return "How far the properties overlap cannot be told from these formats."
    bits = {found.formats[fmt].bits for fmt in formats}
    judged = collinearity({t: [properties[t][f] for f in formats] for t in (MANTISSA, RANGE)})
    r = significant(judged.pairs[0].r)
    if len(bits) == 1:
        width = next(iter(bits))
        return (
            f"All these formats have {width} bits, so exponent bits = {width - 1} − mantissa bits: "
            f"mantissa and range are one property with two names (r = {r}), and no analysis of these "
            "formats can tell which of them the benefit goes with. Formats of other widths can: "
            "altgrad-bench run exponent_mantissa."
        )
    return (
        f"Over formats of {min(bits)} to {max(bits)} bits mantissa bits and range have r = {r} "
        f"(condition number {significant(judged.condition_number)}; above 30 is harmful)."
    )

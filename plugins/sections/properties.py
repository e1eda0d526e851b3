"""Whether the benefit goes along with a property of the formats, and how little that may mean.

The benefit of a format is its mean gain over seeds, then over the settings that all formats have.
References, formats of one uniform grid (whose gain is 0 by construction), and what is censored or
refused are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

import altgrad_core.report.charts as charts
from altgrad_core.interfaces.blocks import Block, Paragraph, Table, cells
from altgrad_core.interfaces.section import Findings
from altgrad_core.report.words import NONE, counted, metric_label, score, significant
from altgrad_plugins.sections.shared import BuiltIn, column, effects, finite, head, planned
from altgrad_plugins.sections.surface import surface_blocks

FEWEST = 3
_ALPHA = 0.05
MANTISSA, RANGE = "mantissa bits", "range (binades)"
_FACTS = {"mantissa_bits": MANTISSA, "binades": RANGE, "sqnr": "SQNR (dB)"}
_MEASURED = {
    "updates/all/snr_db@mean": "SNR of a step (dB)",
    "flips/all/stall_ratio@mean": "stall ratio",
}
_EXACT = 9_999
"""Permutations that are drawn where there are more than this many; fewer are all counted."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ between the benefit and a property over ``n`` formats; p from permutations."""

    n: int
    rho: float
    p: float


class Properties(BuiltIn):
    """Correlations of the benefit with each property, and the plane over two of them."""

    title = "Properties: what does the benefit go along with?"

    def build(self, found: Findings) -> Sequence[Block]:
        """See the class."""
        gains = benefits(found)
        if len(gains) < FEWEST:
            return [Paragraph(_too_few(len(gains)))]
        table = properties(found, gains)
        if table.empty:
            return [
                Paragraph("The numbers of the formats are not at hand: nothing can be correlated.")
            ]
        tested = {str(name): correlate(gains.mean(axis=1), table[name]) for name in table}
        adjusted = _holm([one.p for one in tested.values()])
        blocks: list[Block] = [
            Paragraph(_answer(tested, adjusted)),
            _correlations(tested, adjusted),
            _values(gains.mean(axis=1), table),
            _figure(found, gains.mean(axis=1), table),
            Paragraph(_collinear(found, gains.index)),
        ]
        return [*blocks, *surface_blocks(found, gains)]


def benefits(found: Findings) -> pd.DataFrame:
    """Gains by format (rows) and setting (columns), of the settings that all formats have."""
    rows = [row for row in effects(found, "tested") if finite(row["gain"]) and not row["refused"]]
    known = pd.DataFrame(
        [(row["format"], row["setting"], row["gain"]) for row in rows if not row["censored"]],
        columns=["format", "setting", "gain"],
    )
    return known.pivot_table(index="format", columns="setting", values="gain", sort=False).dropna(
        axis=1
    )


def properties(found: Findings, gains: pd.DataFrame) -> pd.DataFrame:
    """Properties (columns) of the formats (rows) of which any is known.

    Those that were measured are the baseline's: they are what the treatment meets.
    """
    table = pd.DataFrame(index=gains.index)
    for name, title in _FACTS.items():
        if name in found.formats:
            table[title] = found.formats[name].reindex(gains.index).astype("float64")
    runs = planned(found)
    rows = [row for row in effects(found, "tested") if row["setting"] in gains.columns]
    for name, title in _MEASURED.items():
        values = column(runs, name)
        table[title] = [
            values[
                runs["condition"].isin(
                    [r["baseline_condition"] for r in rows if r["format"] == fmt]
                )
            ].mean()
            for fmt in gains.index
        ]
    return table.replace([math.inf, -math.inf], math.nan).dropna(axis=1, how="all")


def correlate(gains: pd.Series[float], values: pd.Series[float]) -> Correlation:
    """Spearman's ρ over the formats that have the property; its two-sided permutation p."""
    both = pd.concat([gains, values], axis=1).dropna().to_numpy()
    if len(both) < FEWEST or (both == both[0]).all(axis=0).any():
        return Correlation(len(both), math.nan, math.nan)
    x, y = both.T

    def rho(one: np.ndarray) -> float:
        return float(stats.spearmanr(one, y).statistic)

    test = stats.permutation_test(
        (x,), rho, permutation_type="pairings", n_resamples=_EXACT, rng=np.random.default_rng(0)
    )
    return Correlation(len(both), rho(x), float(test.pvalue))


def _holm(ps: Sequence[float]) -> list[float]:
    known = [p for p in ps if finite(p)]
    adjusted = iter(multipletests(known, method="holm")[1] if known else ())
    return [float(next(adjusted)) if finite(p) else math.nan for p in ps]


def _too_few(n: int) -> str:
    return (
        f"{counted(n, 'format')} with a benefit that could be otherwise: a correlation needs {FEWEST}, "
        "and to reach p 0.05 at least 5."
    )


def _answer(tested: dict[str, Correlation], adjusted: Sequence[float]) -> str:
    n = max(one.n for one in tested.values())
    over = f"over {counted(n, 'format')}"
    known = [
        (name, one.rho, p)
        for (name, one), p in zip(tested.items(), adjusted, strict=True)
        if finite(p)
    ]
    if not known:
        return f"No correlation is defined {over}: benefits or properties are all equal."
    name, rho, p = min(known, key=lambda row: (row[2], -abs(row[1])))
    text = (
        f"{name} (ρ {significant(rho)}, p {significant(p)} after Holm over {len(known)} properties)"
    )
    if p <= _ALPHA:
        return (
            f"The benefit goes along with {text} {over}. That is an association between formats that "
            "differ in several properties at once; it names no cause."
        )
    few = " (fewer than 5 cannot give a p of 0.05)" if n < 5 else ""
    return f"No property is shown to go along with the benefit {over}{few}; the nearest is {text}."


def _correlations(tested: dict[str, Correlation], adjusted: Sequence[float]) -> Table:
    rows = tuple(
        cells(name, str(one.n), significant(one.rho), significant(one.p), significant(p))
        for (name, one), p in zip(tested.items(), adjusted, strict=True)
    )
    caption = "Each p counts permutations of the benefits over the formats."
    return Table(head(("Property",), ("Formats", "Spearman ρ", "p", "p (Holm)")), rows, caption)


def _values(gains: pd.Series[float], table: pd.DataFrame) -> Table:
    rows = tuple(
        cells(
            str(fmt),
            score(gains[fmt], signed=True),
            *(_number(float(table[name][fmt])) for name in table),
        )
        for fmt in gains.index
    )
    caption = (
        "Benefit: mean gain over seeds, then over settings. SQNR: of a normal tensor scaled by its "
        "largest value. Step SNR and stall ratio: of the baseline's runs."
    )
    return Table(head(("Format",), ("Benefit", *map(str, table))), rows, caption)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return NONE
    return str(int(value)) if float(value).is_integer() else significant(value)


def _figure(found: Findings, gains: pd.Series[float], table: pd.DataFrame) -> Block:
    frame = pd.DataFrame(
        [
            (name, fmt, float(table[name][fmt]), gains[fmt])
            for name in table
            for fmt in gains.index
            if math.isfinite(float(table[name][fmt]))
        ],
        columns=["panel", "label", "x", "y"],
    )
    assert found.question is not None
    label = f"gain in {metric_label(found, found.question.metric)}"
    return charts.scatter(
        "properties", "The benefit of each format by its properties.", frame, ylabel=label
    )


def _collinear(found: Findings, formats: pd.Index[str]) -> str:
    """How far mantissa and range are one property, in words."""
    known = found.formats.reindex(formats)
    if not {"bits", "mantissa_bits", "binades"} <= set(known):
        return "How far the properties overlap cannot be told: the formats are not at hand."
    known = known.dropna(subset=["bits", "mantissa_bits", "binades"])
    if len(known) < FEWEST:
        return "How far the properties overlap cannot be told from these formats."
    r = significant(
        float(known["mantissa_bits"].astype(float).corr(known["binades"].astype(float)))
    )
    widths = sorted({int(bits) for bits in known["bits"]})
    if len(widths) > 1:
        return f"Over formats of {widths[0]} to {widths[-1]} bits, {MANTISSA} and {RANGE} have r = {r}."
    return (
        f"All these formats have {widths[0]} bits, so exponent bits = {widths[0] - 1} − mantissa bits: "
        f"mantissa and range are one property with two names (r = {r}), and no analysis of these formats "
        "can tell which of them the benefit goes with. Formats of other widths can: altgrad-bench run "
        "exponent_mantissa."
    )

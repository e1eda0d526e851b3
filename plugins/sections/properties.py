"""Whether the benefit goes along with a property of the formats, and how little that may mean.

The benefit of a format is its mean gain over seeds, then over the settings that all formats have.
References, formats of one uniform grid (whose gain is 0 by construction), and what is censored or
refused are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

import altgrad_core.report.charts as charts
from altgrad_core.analysis.words import NONE, counted, metric_label, significant
from altgrad_core.interfaces.blocks import Block, Paragraph, Shown, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import (
    BuiltIn,
    column,
    digits,
    effects,
    finite,
    over_seeds,
    planned,
    signed,
)
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


class Properties(BuiltIn):
    """Correlations of the benefit with each property, and the plane over two of them."""

    title = "Properties: what does the benefit go along with?"

    def build(self, found: Findings) -> Sequence[Block]:
        gains = benefits(found)
        if len(gains) < FEWEST:
            return [Paragraph(_too_few(len(gains)))]
        known, mean = properties(found, gains), gains.mean(axis=1)
        if known.empty:
            return [
                Paragraph("The numbers of the formats are not at hand: nothing can be correlated.")
            ]
        tested = correlations(mean, known)
        blocks: list[Block] = [
            Paragraph(_answer(tested)),
            _correlations(tested),
            _values(found, mean, known),
            _figure(found, mean, known),
            Paragraph(_collinear(found, gains.index)),
        ]
        return [*blocks, *surface_blocks(found, gains)]


def benefits(found: Findings) -> pd.DataFrame:
    """Gains by format (rows) and setting (columns), of the settings that all formats have."""
    rows = [row for row in effects(found, "tested") if finite(row["gain"]) and not row["refused"]]
    known = pd.DataFrame(
        [row for row in rows if not row["censored"]], columns=["format", "setting", "gain"]
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
    rows = [row for row in effects(found, "tested") if row["setting"] in gains.columns]
    runs = planned(found)
    runs = runs[runs["condition"].isin([row["baseline_condition"] for row in rows])]
    for name, title in _MEASURED.items():
        table[title] = column(runs, name).groupby(runs["format"]).mean().reindex(gains.index)
    return table.replace([math.inf, -math.inf], math.nan).dropna(axis=1, how="all")


def correlations(gains: pd.Series[float], known: pd.DataFrame) -> pd.DataFrame:
    """A row per property: over how many formats (``n``), Spearman's ``rho``, ``p``, and Holm's."""
    found = pd.DataFrame([_correlate(gains, known[name]) for name in known], index=known.columns)
    tested = found["p"].dropna()
    adjusted = multipletests(tested, method="holm")[1] if len(tested) else []
    return found.assign(holm=pd.Series(adjusted, tested.index, dtype="float64"))


def _correlate(gains: pd.Series[float], values: pd.Series[float]) -> dict[str, float]:
    """Over the formats that have the property; the two-sided p is that of permutations."""
    both = pd.concat([gains, values], axis=1).dropna().to_numpy()
    if len(both) < FEWEST or (both == both[0]).all(axis=0).any():
        return {"n": len(both), "rho": math.nan, "p": math.nan}
    ranks = stats.rankdata(both, axis=0)
    x, y = ((ranks - ranks.mean(axis=0)) / ranks.std(axis=0)).T

    def rho(one: np.ndarray, axis: int) -> np.ndarray:
        return np.asarray((one * y).mean(axis=axis))  # of all permutations at once

    test = stats.permutation_test(
        (x,),
        rho,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_EXACT,
        rng=np.random.default_rng(0),
    )
    return {"n": len(both), "rho": float(test.statistic), "p": float(test.pvalue)}


def _too_few(n: int) -> str:
    return (
        f"{counted(n, 'format')} with a benefit that could be otherwise: a correlation needs {FEWEST}, "
        "and to reach p 0.05 at least 5."
    )


def _answer(tested: pd.DataFrame) -> str:
    n = int(tested["n"].max())
    over = f"over {counted(n, 'format')}"
    known = tested.dropna(subset=["holm"])
    if known.empty:
        return f"No correlation is defined {over}: benefits or properties are all equal."
    name, rho, p = min(
        zip(known.index, known["rho"], known["holm"], strict=True),
        key=lambda row: (row[2], -abs(row[1])),
    )
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


def _correlations(tested: pd.DataFrame) -> Table:
    shown: list[tuple[str, Shown]] = [
        ("Property", "name"),
        ("Formats", "n"),
        ("Spearman ρ", digits("rho")),
        ("p", digits("p")),
        ("p (Holm)", digits("holm")),
    ]
    caption = "Each p counts permutations of the benefits over the formats."
    return table(tested.rename_axis("name").reset_index(), shown, caption)


def _values(found: Findings, gains: pd.Series[float], known: pd.DataFrame) -> Table:
    mean = over_seeds(found, "mean gain over seeds, then over settings", "mean gain over settings")
    caption = (
        f"Benefit: {mean}. SQNR: of a normal tensor scaled by its largest value. Step SNR and stall "
        "ratio: of the baseline's runs."
    )
    shown = [("Format", "format"), ("Benefit", signed("benefit"))]
    shown += [(str(name), digits(str(name), _number)) for name in known]
    rows = known.assign(benefit=gains).rename_axis("format").reset_index()
    return table(rows, shown, caption)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return NONE
    return str(int(value)) if float(value).is_integer() else significant(value)


def _figure(found: Findings, gains: pd.Series[float], known: pd.DataFrame) -> Block:
    frame = known.assign(y=gains).rename_axis("label").reset_index()
    frame = frame.melt(["label", "y"], var_name="panel", value_name="x").dropna(subset=["x"])
    assert found.question is not None
    label = f"gain in {metric_label(found, found.question.metric)}"
    caption = "The benefit of each format by its properties."
    return charts.scatter("properties", caption, frame, ylabel=label)


def _collinear(found: Findings, formats: pd.Index[str]) -> str:
    """How far mantissa and range are one property, in words."""
    needed = ["bits", "mantissa_bits", "binades"]
    if not set(needed) <= set(found.formats):
        return "How far the properties overlap cannot be told: the formats are not at hand."
    known = found.formats.reindex(formats)[needed].dropna().astype(float)
    if len(known) < FEWEST:
        return "How far the properties overlap cannot be told from these formats."
    r = significant(known["mantissa_bits"].corr(known["binades"]))
    widths = sorted({int(bits) for bits in known["bits"]})
    if len(widths) > 1:
        return f"Over formats of {widths[0]} to {widths[-1]} bits, {MANTISSA} and {RANGE} have r = {r}."
    return (
        f"All these formats have {widths[0]} bits, so exponent bits = {widths[0] - 1} − mantissa bits: "
        f"mantissa and range are one property with two names (r = {r}), and no analysis of these formats "
        "can tell which of them the benefit goes with. Formats of other widths can: altgrad-bench run "
        "exponent_mantissa."
    )

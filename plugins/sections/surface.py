"""The benefit over exponent and mantissa bits at once, where formats of several widths were run.

Among formats of one width, exponent and mantissa bits are one number; over several widths a plane
can tell them apart. It is fitted twice: to the formats' mean gains (how far do they lie off it?) and
to each seed's (would new seeds on these very formats give the same slope?).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

import altgrad_core.report.charts as charts
from altgrad_core.analysis.words import LEVEL, counted, score, significant
from altgrad_core.interfaces.blocks import Block, Paragraph, Shown, Table, table
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import digits, interval, plain, signed

_TERMS = {"const": "intercept", "exponent_bits": "exponent bits", "mantissa_bits": "mantissa bits"}


def surface_blocks(found: Findings, gains: pd.DataFrame) -> list[Block]:
    """A plane over both kinds of bits; nothing where all formats have one width.

    gains:
        by format (rows) and setting (columns), as the properties section has them.
    """
    needed = ["bits", "exponent_bits", "mantissa_bits"]
    if not set(needed) <= set(found.formats):
        return []
    bits = found.formats.reindex(gains.index)[needed].dropna().astype(float)
    if bits["bits"].nunique() < 2:
        return []
    design = bits[["exponent_bits", "mantissa_bits"]]
    design.insert(0, "const", 1.0)
    if len(bits) <= len(_TERMS) or np.linalg.matrix_rank(design) < len(_TERMS):
        return [
            Paragraph(f"No plane is fitted: {counted(len(bits), 'format')} do not determine one.")
        ]
    means = gains.loc[bits.index].mean(axis=1)
    return [_table(found, design, means, gains), _heat(bits, means)]


def _table(
    found: Findings, design: pd.DataFrame, means: pd.Series[float], gains: pd.DataFrame
) -> Table:
    from statsmodels.regression.linear_model import OLS  # most suites have one width

    fit = OLS(means, design).fit()
    slopes = _over_seeds(found, design, gains)
    rows = [
        {"term": title, "value": fit.params[name], "error": fit.bse[name], "p": fit.pvalues[name]}
        | dict(zip(("low", "high", "p_seeds"), slopes.get(name, (np.nan,) * 3), strict=True))
        for name, title in _TERMS.items()
    ]
    shown: list[tuple[str, Shown]] = [
        ("Term", "term"),
        ("Value", signed("value")),
        ("Error", plain("error")),
        ("p", digits("p")),
        (f"{LEVEL} interval over seeds", interval()),
        ("p over seeds", digits("p_seeds")),
    ]
    caption = (
        f"Benefit = intercept + slopes · bits, least squares over {counted(len(means), 'format')} "
        f"(R² {significant(fit.rsquared)}). Error and p: how far the formats lie off the plane."
    )
    if slopes:
        caption += " Over seeds: whether new seeds on these very formats would give the same slope."
    return table(rows, shown, caption)


def _over_seeds(
    found: Findings, design: pd.DataFrame, gains: pd.DataFrame
) -> dict[str, tuple[float, float, float]]:
    """Term -> t interval and p of its coefficient over the seeds that have every format and setting."""
    groups = found.effects[
        (found.effects["role"] == "tested")
        & found.effects["format"].isin(design.index)
        & found.effects["setting"].isin(gains.columns)
    ]
    pairs = found.pairs[found.pairs["dropped"] == ""].merge(groups[["group", "format"]], on="group")
    whole = pairs.groupby("seed")["group"].transform("nunique") == len(groups)
    by_seed = pairs[whole].pivot_table(index="seed", columns="format", values="gain")
    by_seed = by_seed.reindex(columns=design.index)
    if len(by_seed) < 2:
        return {}
    fits = np.linalg.lstsq(design.to_numpy(), by_seed.to_numpy().T, rcond=None)[0]
    tests = {str(name): stats.ttest_1samp(fit, 0.0) for name, fit in zip(design, fits, strict=True)}
    return {name: (*test.confidence_interval(0.95), test.pvalue) for name, test in tests.items()}


def _heat(bits: pd.DataFrame, means: pd.Series[float]) -> Block:
    ordered = bits.sort_values(["exponent_bits", "mantissa_bits"])
    frame = pd.DataFrame(
        {
            "row": [f"E = {int(e)}" for e in ordered["exponent_bits"]],
            "column": [f"M = {int(m)}" for m in ordered["mantissa_bits"]],
            "value": [means[fmt] for fmt in ordered.index],
            "text": [score(means[fmt], signed=True) for fmt in ordered.index],
        }
    )
    return charts.heat("surface", "The benefit by exponent and mantissa bits.", frame)

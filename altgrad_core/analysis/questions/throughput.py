"""Which formats are fastest. What is measured is the simulation, and that is said first."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from altgrad_core.analysis.curves import line_labels, side_ranks
from altgrad_core.analysis.document import Block, Paragraph, Section, Table, cells
from altgrad_core.analysis.figures import throughput_figure
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.groups import texts
from altgrad_core.analysis.numbers import listed, percent, significant, spread
from altgrad_core.analysis.summary import MEASURES, column
from altgrad_core.analysis.tables import number_table

TITLE = "Throughput: which formats are fastest?"
_SPEED = MEASURES["samples_per_second"]
_MOST_BARS = 40

SIMULATED = (
    "Every format here is simulated: tensors are rounded to the format's values and multiplied in "
    "float32 or bfloat16. Samples/s measure that simulation, not an 8-bit kernel, and do not tell "
    "which format hardware would run fastest."
)


def section(found: Findings, folder: Path) -> Section:
    """Samples per second and what each format costs against the reference."""
    table = found.conditions
    if table["samples_per_second"].isna().all():
        text = "No run has measured its throughput yet; the monitor is called throughput."
        return Section(TITLE, [Paragraph(text)])
    blocks: list[Block] = [Paragraph(f"{_answer(found)} {SIMULATED}"), _table(found)]
    shown = table.head(_MOST_BARS)
    figure = throughput_figure(shown, _colours(found, shown))
    return Section(TITLE, [*blocks, figure] if figure is not None else blocks)


def _speeds(found: Findings) -> pd.DataFrame:
    """Format -> samples/s of its plainest baseline condition: mean, spread and number of seeds."""
    everything, contrast = found.done, found.contrast
    axis = contrast.axis if contrast is not None and contrast.axis in everything else "condition"
    done = everything[["format", "condition", "residency"]].copy()
    done["speed"], done["side"] = column(everything, _SPEED), texts(everything, axis)
    if contrast is not None:
        baseline = done[done["side"] == contrast.baseline]
        done = baseline if baseline["speed"].notna().any() else done
    master = done[done["residency"] == "master"]
    done = master if master["speed"].notna().any() else done
    rows = []
    for fmt in dict.fromkeys(done["format"]):
        runs = done[done["format"] == fmt]
        first = runs[runs["condition"] == runs["condition"].iloc[0]]
        found_here = spread(first["speed"].tolist())
        rows.append(
            (fmt, first["condition"].iloc[0], found_here.mean, found_here.std, found_here.n)
        )
    return pd.DataFrame(rows, columns=["format", "condition", "mean", "std", "n"])


def _answer(found: Findings) -> str:
    speeds = _speeds(found).dropna(subset=["mean"])
    if speeds.empty:
        return ""
    ordered = speeds.sort_values("mean", ascending=False)
    best, worst = ordered.iloc[0], ordered.iloc[-1]
    if len(ordered) == 1:
        return f"{best['format']} trains at {significant(best['mean'])} samples/s."
    text = (
        f"The fastest simulation is that of {best['format']} with {significant(best['mean'])} "
        f"samples/s, the slowest that of {worst['format']} with {significant(worst['mean'])} "
        f"({significant(worst['mean'] / best['mean'])}×)."
    )
    spreads = (ordered["std"] / ordered["mean"]).dropna()
    if spreads.empty:
        return f"{text} There is one run of each, so how much runs scatter is not known."
    reach = ordered["mean"] + ordered["std"].fillna(0) >= best["mean"] - best["std"]
    close = ordered[reach]["format"].tolist()[1:]
    near = f" Within one standard deviation of the fastest: {listed(close)}." if close else ""
    return f"{text} Seeds scatter by up to {percent(float(spreads.max()))} %.{near}"


def _table(found: Findings) -> Table:
    speeds = _speeds(found)
    reference = _reference_speed(found, speeds)
    rows = tuple(
        cells(
            str(row["format"]),
            str(row["condition"]),
            significant(row["mean"]),
            significant(row["std"]),
            significant(row["mean"] / reference),
            significant(reference / row["mean"]),
            _overhead(found, str(row["format"])),
        )
        for _, row in speeds.iterrows()
    )
    treatment = found.contrast.treatment if found.contrast is not None else "treatment"
    head = number_table(
        ("Format", "Condition"),
        ("Samples/s", "std", "Speed (×)", "Cost of a step (×)", f"Cost of {treatment} (×)"),
    )
    caption = (
        f"Relative to {found.reference}. The last column: time per sample of the treatment against "
        "the baseline of the same setting, the range over settings."
    )
    return Table(head, rows, caption)


def _reference_speed(found: Findings, speeds: pd.DataFrame) -> float:
    table = found.conditions.set_index("condition")["samples_per_second"]
    value = float(table.get(found.reference, math.nan))
    return value if not math.isnan(value) else float(speeds["mean"].max())


def _overhead(found: Findings, fmt: str) -> str:
    """Time per sample of the treatment against the baseline, least to most over the settings."""
    speed = found.conditions.set_index("condition")["samples_per_second"]
    ratios = [
        float(speed[one.delta.place.baseline[0]] / speed[one.delta.place.treatment[0]])
        for one in found.comparisons
        if one.delta.place.format == fmt
    ]
    known = [ratio for ratio in ratios if not math.isnan(ratio)]
    if not known:
        return significant(math.nan)
    ends = dict.fromkeys(significant(ratio) for ratio in (min(known), max(known)))
    return " to ".join(ends)


def _colours(found: Findings, table: pd.DataFrame) -> list[int]:
    contrast = found.contrast
    if contrast is None or contrast.axis not in found.results:
        return [0] * len(table)
    labels, ranks = line_labels(found.results, contrast), side_ranks(found.results, contrast)
    return [ranks[labels[condition]] for condition in table["condition"]]

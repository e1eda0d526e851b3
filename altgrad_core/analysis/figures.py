"""The report's figures: which curves and numbers are drawn, and what is written under them."""

from __future__ import annotations

from altgrad_core.analysis.curves import Panel, panels, side_ranks, upper_limit
from altgrad_core.analysis.document import Figure
from altgrad_core.analysis.findings import CURVES, Findings
from altgrad_core.analysis.plots import key_lines, plot_curves, plot_deltas, plot_throughput
from altgrad_core.analysis.words import metric_name

LOSS, VALIDATION = CURVES
_COLUMNS = 3


def loss_figure(found: Findings) -> Figure | None:
    """Training loss by step, a panel per group; None without a logged loss."""
    caption = (
        "Training loss, a running mean over a twentieth of each curve. All panels share their "
        "axes; the loss of a diverged run (×: its last finite value) may leave them."
    )
    return _curve_figure(found, LOSS, "loss", "training loss", caption, smooth=True)


def validation_figure(found: Findings) -> Figure | None:
    """Validation score by step, a panel per group; None without an evaluation."""
    caption = (
        "Validation F1 micro at the threshold tuned on that evaluation. All panels share axes."
    )
    return _curve_figure(found, VALIDATION, "f1", "validation F1 micro, tuned", caption, bottom=0.0)


def _curve_figure(
    found: Findings,
    metric: str,
    name: str,
    ylabel: str,
    caption: str,
    *,
    bottom: float | None = None,
    smooth: bool = False,
) -> Figure | None:
    parts = panels(found.results, found.curves, metric, found.contrast, smooth=smooth)
    if not parts:
        return None
    top = 1.05 * upper_limit(parts, found.results, found.curves, metric) or 1.0
    if any(line.rank is None for panel in parts for line in panel.lines):
        caption += " The reference is in grey."
    if found.seeds > 1:
        caption += " Thin: each seed; thick: their mean."

    lines = key_lines(parts)

    def draw(shown: list[Panel], columns: int, salt: str) -> str:
        limits = (bottom, top)
        return plot_curves(
            shown, ylabel=ylabel, limits=limits, lines=lines, columns=columns, salt=salt
        )

    each = tuple(draw([panel], 1, f"{name}-{number}") for number, panel in enumerate(parts))
    return Figure(name, caption, each, draw(parts, _COLUMNS, name))


def delta_figure(found: Findings) -> Figure | None:
    """The paired differences; None where there is no pair."""
    if found.contrast is None or not found.compared:
        return None
    label = f"Δ {metric_name(found.contrast.metric)}"
    svg = plot_deltas(found.deltas, xlabel=label, floor=found.floor, salt="delta")
    caption = f"{label}: {found.contrast.treatment} − {found.contrast.baseline}."
    if any(delta.delta.n > 1 for delta in found.deltas):
        caption += " Small dots: seeds; large dot and bar: mean ± standard deviation."
    if any(pair.diverged for delta in found.deltas for pair in delta.pairs):
        caption += (
            " Hollow: a diverged run is in it; an arrowhead points to a difference off the axis."
        )
    if found.floor:
        caption += " Grey band: the noise floor."
    return Figure("delta", caption, (svg,), svg)


def throughput_figure(found: Findings) -> Figure | None:
    """Samples per second by condition; None where no run measured them."""
    table = found.conditions
    if table["samples_per_second"].isna().all():
        return None
    ranks = side_ranks(found.results, found.contrast)
    axis = found.contrast.axis if found.contrast is not None else ""
    sides = found.planned.drop_duplicates("condition").set_index("condition")
    colours = [
        ranks.get(str(sides.loc[condition, axis]), 0) if ranks else 0
        for condition in table["condition"]
    ]
    svg = plot_throughput(table, colours, salt="throughput")
    caption = (
        "Training throughput without warm-up, evaluation, checkpoints and monitors, mean over "
        "seeds. Runs that shared a machine have slowed each other."
    )
    return Figure("throughput", caption, (svg,), svg)

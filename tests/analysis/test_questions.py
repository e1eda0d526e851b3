"""The sections of the report: their numbers worked out again, and what they say where data lack."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats

from altgrad_core import load_format
from altgrad_core.analysis.document import Bullets, Figure, HeatMap, Paragraph, Section, Table
from altgrad_core.analysis.figures import comparison_row
from altgrad_core.analysis.findings import Findings, find
from altgrad_core.analysis.format_numbers import numbers_of
from altgrad_core.analysis.questions import (
    benefit,
    controls,
    failures,
    layers,
    performance,
    properties,
    ranks,
    rates,
    reference,
    seeds,
    throughput,
)
from altgrad_core.analysis.sections import NUMBERS, QUESTIONS, build_document
from altgrad_core.errors import UserError
from altgrad_core.results.stored import read_suite

SPEED = "throughput/all/cumulative_samples_per_second"
LADDER = ("e2m5", "e3m4", "e4m3", "e5m2", "e6m1")
Make = Callable[..., Findings]


@pytest.fixture
def make(planted: ModuleType, fabricated: ModuleType, tmp_path: Path) -> Make:
    """Writes a suite of planted effects and computes its findings."""

    def made(score: Any = None, same_grid: Any = (), numbers: Any = None, **more: Any) -> Findings:
        given = {"formats": ("bf16", "e5m2", "e3m4"), "margin": 0.005, **more}
        score = score or planted.noisy({"e5m2": 0.05}, 0.01)
        planted.write_suite(fabricated, tmp_path, score, **given)
        return find(read_suite(tmp_path), same_grid, numbers)

    return made


def text_of(section: Section) -> str:
    """All running text of a section."""
    parts = []
    for block in section.blocks:
        if isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Bullets):
            parts += block.items
        elif isinstance(block, Table | Figure | HeatMap):
            parts.append(block.caption)
    return "\n".join(parts)


def tables(section: Section) -> Iterator[Table]:
    return (block for block in section.blocks if isinstance(block, Table))


def heat(section: Section) -> HeatMap:
    return next(block for block in section.blocks if isinstance(block, HeatMap))


def rows_of(table: Table) -> dict[str, dict[str, str]]:
    """First cell -> title -> text."""
    titles = [column.title for column in table.columns]
    return {
        row[0].text: dict(zip(titles, (cell.text for cell in row), strict=True))
        for row in table.rows
    }


def signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


# Controls


def test_controls_show_each_pair_seed_by_seed(make: Make, tmp_path: Path) -> None:
    def score(fmt: str, side: str, seed: int) -> float:
        return 0.5 + 0.01 * seed + (0.002 * seed if (fmt, side) == ("e1m6", "adamw") else 0)

    found = make(score, [("e0m7", "e1m6")], formats=("e0m7", "e1m6"), seeds=[0, 1, 2])
    section = controls.section(found, tmp_path)
    table = next(tables(section))
    shown = [[cell.text for cell in row] for row in table.rows]
    assert shown == [
        ["e0m7, e1m6", "adamw", "0.5100", "0.5120", "0.0000, +0.0020, +0.0040", "no"],
        ["e0m7, e1m6", "manifold_adamw", "0.5100", "0.5100", "0.0000, 0.0000, 0.0000", "yes"],
    ]
    assert "The instrument fails its control." in text_of(section)
    assert "2 of which differ although all scales are powers of two, by up to 0.0040" in text_of(
        section
    )


def test_no_pair_is_no_control(make: Make, tmp_path: Path) -> None:
    assert text_of(controls.section(make(), tmp_path)).startswith("No A/A control")


def test_placebos_are_compared_with_both_sides(make: Make, tmp_path: Path) -> None:
    gains = {
        "adamw": [0.0, 0.0, 0.0, 0.0],
        "manifold_adamw": [0.05, 0.06, 0.04, 0.05],
        "manifold_adamw permuted": [0.03, 0.02, 0.03, 0.04],
    }
    sides = [
        {"type": "adamw"},
        {"type": "manifold_adamw"},
        {"type": "manifold_adamw", "stiffness": "permuted"},
    ]
    found = make(
        lambda f, side, s: 0.5 + 0.1 * s + gains[side][s],
        sides=sides,
        formats=["e5m2"],
        seeds=range(4),
    )
    section = controls.section(found, tmp_path)
    row = rows_of(list(tables(section))[-1])["e5m2, stiffness permuted"]
    over = np.array(gains["manifold_adamw permuted"])
    ahead = np.array(gains["manifold_adamw"]) - over
    for column, values in (("Placebo over baseline", over), ("Treatment over placebo", ahead)):
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert row[column] == f"{signed(values.mean())} ({signed(low)} to {signed(high)})"
    assert "the treatment gains more than it in" not in text_of(section)  # 0.02 ± 0.028
    assert "none shows the treatment to gain more than it" in text_of(section)


# Learning rates


def test_the_protocol_is_shown_with_what_it_left_open(make: Make, tmp_path: Path) -> None:
    found = make(censored=["e5m2_adamw"])
    section = rates.section(found, tmp_path)
    text = text_of(section)
    assert "the same 3 rates (0.0003, 0.001, 0.003) with 2 seeds of their own (1000, 1001)" in text
    assert "6 runs each" in text
    assert "The grid was not extended (0 rates allowed)." in text
    assert "The best rate of e5m2_adamw still lies on an edge" in text
    row = rows_of(next(tables(section)))
    assert row["e5m2_adamw"]["Chosen"] == "0.003, censored"
    assert row["bf16_adamw"]["Chosen"] == "0.001"
    assert row["bf16_adamw"]["Score there"] == "0.6100 ± 0.0141"  # 0.60 and 0.62
    assert row["bf16_adamw"]["Largest stable rate"] == "0.001"
    figure = next(block for block in section.blocks if isinstance(block, Figure))
    assert len(figure.panels) == 3
    assert "learning rate" in figure.whole


def test_without_the_protocol_its_absence_is_said(make: Make, tmp_path: Path) -> None:
    text = text_of(rates.section(make(), tmp_path))
    assert "the same learning rate, 0.001. It was not tuned for each of them" in text


# Q1


def test_throughput_is_said_to_be_simulated(
    make: Make, fabricated: ModuleType, tmp_path: Path
) -> None:
    speeds = {"bf16": 100.0, "e5m2": 80.0, "e3m4": 125.0}

    def more(fmt: str, optimizer: str, seed: int) -> list[str]:
        slower = 0.5 if optimizer != "adamw" else 1.0
        return [fabricated.line(9, "monitor", {SPEED: (speeds[fmt] + seed) * slower})]

    section = throughput.section(make(more=more, seeds=[0, 1, 2]), tmp_path)
    text = text_of(section)
    assert "The fastest simulation is that of e3m4 with 126 samples/s" in text
    assert "the slowest that of e5m2 with 81.0 (0.643×)" in text
    assert "Every format here is simulated" in text
    assert "not an 8-bit kernel" in text
    row = rows_of(next(tables(section)))["e5m2"]
    assert row["Speed (×)"] == f"{81 / 101:.3f}"
    assert row["Cost of a step (×)"] == f"{101 / 81:.2f}"
    assert row["Cost of manifold_adamw (×)"] == "2.00"
    assert row["std"] == "1.00"


def test_no_speed_names_the_monitor(make: Make, tmp_path: Path) -> None:
    assert "the monitor is called throughput" in text_of(throughput.section(make(), tmp_path))


# Q2


def test_the_best_condition_is_named_with_its_selection(make: Make, tmp_path: Path) -> None:
    table = {"bf16": 0.5, "e5m2": 0.6, "e3m4": 0.4}
    found = make(
        lambda f, o, s: table[f] + 0.01 * s + (0.02 if o != "adamw" else 0), seeds=[0, 1, 2]
    )
    section = performance.section(found, tmp_path)
    text = text_of(section)
    assert "is 0.6300 ± 0.0100, of e5m2_manifold_adamw" in text
    assert "the reference bf16_adamw has 0.5100 ± 0.0100" in text
    assert "best of 6 conditions, chosen after the fact" in text
    scores = heat(section)
    assert scores.rows == ("adamw", "manifold_adamw")
    assert scores.columns == ("bf16", "e5m2", "e3m4")
    assert scores.values[1] == pytest.approx((0.53, 0.63, 0.43))


# Q3


def test_each_row_of_the_contrast_by_other_means(
    make: Make, planted: ModuleType, tmp_path: Path
) -> None:
    score = planted.noisy({"e5m2": 0.05}, 0.01)
    section = benefit.section(make(score), tmp_path)
    rows = rows_of(next(tables(section)))
    for fmt in ("bf16", "e5m2", "e3m4"):
        a = np.array([score(fmt, "adamw", s) for s in planted.SEEDS])
        b = np.array([score(fmt, "manifold_adamw", s) for s in planted.SEEDS])
        test = stats.ttest_rel(b, a)
        low, high = test.confidence_interval(0.95)
        row = rows[fmt]
        assert row["adamw"] == f"{a.mean():.4f}"
        assert row["manifold_adamw"] == f"{b.mean():.4f}"
        assert row["Δ F1 micro, tuned"] == signed((b - a).mean())
        assert row["95\N{NO-BREAK SPACE}% interval"] == f"{signed(low)} to {signed(high)}"
        assert row["std"] == f"{(b - a).std(ddof=1):.4f}"
        assert row["Improved"] == f"{(b > a).sum()} of 5"
        assert float(row["p (t)"].replace("−", "-")) == pytest.approx(test.pvalue, rel=0.01)
    assert rows["e5m2"]["Verdict"] == "benefit"
    assert "benefit: 1 (e5m2)" in text_of(section)
    assert "within the margin of ±0.0050" in text_of(section)


def test_a_censored_group_shows_no_difference_anywhere(
    make: Make, planted: ModuleType, tmp_path: Path
) -> None:
    score = planted.noisy({"e5m2": 0.0512}, 0.01)
    found = make(score, censored=["e5m2_manifold_adamw"])
    gain = np.mean(
        [score("e5m2", "manifold_adamw", s) - score("e5m2", "adamw", s) for s in range(5)]
    )
    document = build_document(found, tmp_path)
    row = rows_of(next(tables(benefit.section(found, tmp_path))))["e5m2"]
    assert row["Δ F1 micro, tuned"] == "censored (best rate at the edge, lr=0.003)"
    assert row["p (t)"] == row["p (Holm)"] == row["p (TOST)"] == "–"
    assert row["Verdict"] == "censored"
    one = next(one for one in found.comparisons if one.group == "e5m2")
    assert math.isnan(comparison_row(one).centre)  # nothing is drawn
    assert comparison_row(one).values == ()
    written = repr(document)  # tables, captions, figures: everything
    assert "censored (best rate at the edge, lr=0.003)" in written
    assert f"{abs(gain):.4f}" not in written
    assert signed(score("e5m2", "manifold_adamw", 0) - score("e5m2", "adamw", 0)) not in written


def test_cautions_are_said_once(make: Make, tmp_path: Path) -> None:
    items = [
        item
        for block in benefit.section(make(), tmp_path).blocks
        if isinstance(block, Bullets)
        for item in block.items
    ]
    assert sum("cannot give a p below 0.0625" in item for item in items) == 1
    assert len(items) == len(set(items))


def test_settings_make_a_heat_map_of_differences(make: Make, tmp_path: Path) -> None:
    gains = {"bf16": 0.03, "e5m2": -0.01}
    settings = [{"quantization.residency": r} for r in ("master", "grid")]
    found = make(
        lambda f, o, s: 0.5 + 0.01 * s + (gains[f] if o != "adamw" else 0),
        formats=["bf16", "e5m2"],
        settings=settings,
        seeds=[0, 1],
    )
    shown = heat(benefit.section(found, tmp_path))
    assert (shown.rows, shown.columns) == (("master", "grid"), ("bf16", "e5m2"))
    assert shown.texts == (("+0.0300", "−0.0100"), ("+0.0300", "−0.0100"))
    assert shown.diverging


# Q4


def test_ranks_kept_are_compared_seed_by_seed(
    make: Make, fabricated: ModuleType, tmp_path: Path
) -> None:
    kept = {"adamw": [0.5, 0.6, 0.7], "manifold_adamw": [0.7, 0.7, 0.9]}

    def more(fmt: str, optimizer: str, seed: int) -> list[str]:
        f = fabricated
        lines = [
            f.monitor_line(1, rank__all__effective_rank=40.0, rank__all__stable_rank=8.0),
            f.monitor_line(
                9, rank__all__effective_rank=40 * kept[optimizer][seed], rank__all__stable_rank=4.0
            ),
        ]
        if optimizer == "adamw" and seed == 1:
            lines.append(f.event_line(5, "rank_collapse", "layer.0", "fell"))
        return lines

    section = ranks.section(make(more=more, formats=["e5m2"], seeds=[0, 1, 2]), tmp_path)
    first, second = tables(section)
    row = rows_of(first)["e5m2_adamw"]
    assert row["Effective rank"] == "40.0 → 24.0"
    assert row["Effective rank kept (%)"] == "60.0"
    assert (row["Collapses"], row["First at step"]) == ("1", "5")
    differences = np.subtract(kept["manifold_adamw"], kept["adamw"])
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    row = rows_of(second)["e5m2"]
    assert row["Δ kept (points)"] == f"+{100 * differences.mean():.1f}"
    assert row["95\N{NO-BREAK SPACE}% interval"] == f"+{100 * low:.2f} to +{100 * high:.1f}"
    assert "1 collapse, in e5m2_adamw" in text_of(section)


# Q5


@pytest.mark.parametrize(
    ("kind", "layer", "stage"),
    [
        ("overflow_forward", "a", "forward"),
        ("nan_backward", "a", "backward"),
        ("nan_optimizer", "a", "optimizer"),
        ("stall", "a", "optimizer"),
        ("gradient_misaligned", "a", "backward"),
        ("rank_collapse", "a", "weights"),
        ("format_shift", "a", "intervention"),
        ("monitor_failed", "all", "other"),
        ("diverged", "parameter encoder.weight", "optimizer"),
        ("diverged", "gradient of encoder.weight", "backward"),
        ("diverged", "the forward pass (all parameters and gradients are finite)", "forward"),
    ],
)
def test_the_stage_of_an_event(kind: str, layer: str, stage: str) -> None:
    assert failures.stage_of(kind, layer) == stage


def test_failures_by_format_stage_and_layer(
    make: Make, planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    calm = planted.noisy({}, 0.01)

    def more(fmt: str, optimizer: str, seed: int) -> list[str]:
        if fmt != "e5m2":
            return []
        lines = [fabricated.event_line(30 + seed, "overflow_forward", f"layer.{seed}", "too large")]
        if seed == 0 and optimizer == "adamw":
            lines.append(fabricated.event_line(50, "diverged", "gradient of layer.1", "NaN"))
        return lines

    found = make(
        lambda f, o, s: None if (f, o, s) == ("e5m2", "adamw", 0) else calm(f, o, s),
        more=more,
        seeds=[0, 1],
    )
    section = failures.section(found, tmp_path)
    events = [[cell.text for cell in row] for row in list(tables(section))[1].rows]
    assert events == [
        ["e5m2", "forward", "overflow_forward", "4 of 4", "layer.0 and layer.1", "30", "too large"],
        ["e5m2", "backward", "diverged", "1 of 4", "gradient of layer.1", "50", "NaN"],
    ]
    shown = heat(section)
    assert (shown.rows, shown.columns) == (("bf16", "e5m2", "e3m4"), ("forward", "backward"))
    assert list(shown.values) == [(0, 0), (1.0, 0.25), (0, 0)]
    text = text_of(section)
    assert "1 run diverged (e5m2: 1)" in text
    assert "The first is overflow_forward in e5m2 at step 30 (layer.0)" in text


# Q6


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("encoder.transformer.layer.0.attention.q_lin.weight", "attention, query"),
        ("encoder.layer.1.attention.self.key.weight", "attention, key"),
        ("encoder.layer.1.attention.self.value.weight", "attention, value"),
        ("encoder.layer.1.attention.output.dense.weight", "attention, output"),
        ("encoder.transformer.layer.0.attention.out_lin.weight", "attention, output"),
        ("encoder.layer.1.intermediate.dense.weight", "feed-forward, in"),
        ("encoder.layer.1.output.dense.weight", "feed-forward, out"),
        ("encoder.transformer.layer.0.ffn.lin1.weight", "feed-forward, in"),
        ("encoder.transformer.layer.0.ffn.lin2.weight", "feed-forward, out"),
        ("layers.0.self_attn.in_proj_weight", "attention, in (fused)"),
        ("layers.0.self_attn.out_proj.weight", "attention, output"),
        ("layers.0.linear1.weight", "feed-forward, in"),
        ("classifier.weight", "classifier"),
        ("embeddings.weight", "other"),
    ],
)
def test_types_of_layers(name: str, kind: str) -> None:
    assert layers.layer_type(name) == kind


def stalls(f: ModuleType, table: dict[str, tuple[float, float]]) -> Any:
    """Stall ratios of a query and of a feed-forward matrix, by format."""

    def more(fmt: str, optimizer: str, seed: int) -> list[str]:
        query, feed = table[fmt]
        shift = 0.3 if optimizer != "adamw" else 0.0  # the treatment must not enter
        values = {
            "flips/l.0.q_lin.weight/stall_ratio": query + shift,
            "flips/l.1.q_lin.weight/stall_ratio": query + shift + 0.02,
            "flips/l.0.lin1.weight/stall_ratio": feed + shift,
            "flips/all/stall_ratio": 0.0,
        }
        return [f.line(1, "monitor", values), f.line(2, "monitor", values)]

    return more


def test_formats_are_ranked_within_each_type_of_layer(
    make: Make, fabricated: ModuleType, tmp_path: Path
) -> None:
    table = {"bf16": (0.01, 0.01), "e5m2": (0.2, 0.6), "e3m4": (0.3, 0.5), "e7m0": (0.1, 0.1)}
    scores = {"bf16": 0.9, "e5m2": 0.50, "e3m4": 0.498, "e7m0": 0.3}
    found = make(
        lambda f, o, s: scores[f] + 0.001 * s,
        formats=tuple(table),
        more=stalls(fabricated, table),
        seeds=[0, 1],
    )
    section = layers.section(found, tmp_path)
    rows = rows_of(next(tables(section)))
    assert rows["attention, query"]["By stall ratio"] == "e5m2 (0.210), e3m4 (0.310)"
    assert rows["feed-forward, in"]["By stall ratio"] == "e3m4 (0.500), e5m2 (0.600)"
    text = text_of(section)
    assert "the best are e5m2 in attention, query; e3m4 in feed-forward, in, of 2 formats" in text
    assert "left out: e7m0" in text
    assert "diagnostic" in text
    assert "monitors gradient_error and updates" in text
    shown = heat(section)
    assert shown.columns == ("bf16", "e5m2", "e3m4", "e7m0")
    assert shown.values[0] == pytest.approx((0.02, 0.21, 0.31, 0.11))


def test_no_numbers_by_layer_name_the_monitors(make: Make, tmp_path: Path) -> None:
    text = text_of(layers.section(make(), tmp_path))
    assert "monitors gradient_error, updates and flips" in text


# Q7


def test_correlations_by_other_means(
    make: Make, planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    gains = dict(zip(LADDER, (0.01, 0.02, 0.03, 0.04, 0.05), strict=True))
    stall = dict(zip(LADDER, (0.5, 0.9, 0.1, 0.7, 0.3), strict=True))
    score = planted.noisy(gains, 0.001)
    found = make(
        score,
        numbers=numbers_of({name: load_format(name) for name in (*LADDER, "bf16")}),
        formats=(*LADDER, "bf16"),
        more=lambda fmt, o, s: [
            fabricated.monitor_line(1, flips__all__stall_ratio=stall.get(fmt, 0.0))
        ],
    )
    section = properties.section(found, tmp_path)
    rows = rows_of(next(tables(section)))
    mean = [
        np.mean([score(f, "manifold_adamw", s) - score(f, "adamw", s) for s in planted.SEEDS])
        for f in LADDER
    ]
    expected = {
        "mantissa bits": [5, 4, 3, 2, 1],
        "stall ratio": list(stall.values()),
    }
    for name, values in expected.items():
        row = rows[name]
        assert row["Formats"] == "5"  # not bf16, which is used at scale 1
        rho = stats.spearmanr(values, mean).statistic
        assert float(row["Spearman ρ"].replace("−", "-")) == pytest.approx(rho, abs=1e-3)
        r = stats.pearsonr(values, mean).statistic
        assert float(row["Pearson r"].replace("−", "-")) == pytest.approx(r, abs=1e-3)
    # Five formats in order: 2 of 120 orders correlate as strongly.
    assert float(rows["mantissa bits"]["p"]) == pytest.approx(2 / 120, abs=1e-4)
    values = rows_of(list(tables(section))[1])
    assert values["e3m4"]["range (binades)"] == f"{math.log2(31 * 64):.1f}"
    text = text_of(section)
    assert "exponent bits = 7 − mantissa bits" in text
    assert "one property with two names" in text
    assert "No surface" not in text


def test_formats_of_several_widths_make_a_surface(
    make: Make, planted: ModuleType, tmp_path: Path
) -> None:
    shapes = [(e, m) for e in (2, 3, 4) for m in (1, 2, 3)]
    formats = {
        f"exmy (exponent_bits={e}, mantissa_bits={m})": load_format(
            "exmy", exponent_bits=e, mantissa_bits=m
        )
        for e, m in shapes
    }
    gains = {name: 0.01 * e - 0.004 * m for name, (e, m) in zip(formats, shapes, strict=True)}
    found = make(planted.noisy(gains, 0.001), numbers=numbers_of(formats), formats=tuple(formats))
    section = properties.section(found, tmp_path)
    rows = rows_of(list(tables(section))[-1])
    assert float(rows["exponent bits"]["Value"]) == pytest.approx(0.01, abs=0.001)
    assert float(rows["mantissa bits"]["Value"].replace("−", "-")) == pytest.approx(
        -0.004, abs=0.001
    )
    benefits = [np.mean(one.delta.gains) for one in found.comparisons]
    design = np.column_stack([np.ones(9), *np.array(shapes).T])
    fitted = np.linalg.lstsq(design, np.array(benefits), rcond=None)[0]
    shown = [float(rows[n]["Value"].replace("−", "-")) for n in ("exponent bits", "mantissa bits")]
    assert shown == pytest.approx(list(fitted[1:]), abs=5e-5)
    assert heat(section).rows == ("E = 2", "E = 3", "E = 4")
    assert "Over formats of 4 to 8 bits" in text_of(section)


def test_two_formats_are_too_few(make: Make, tmp_path: Path) -> None:
    assert "2 quantised formats" in text_of(
        properties.section(make(formats=["e5m2", "e3m4"]), tmp_path)
    )


# Q8


def test_differences_from_the_reference_by_other_means(
    make: Make, planted: ModuleType, tmp_path: Path
) -> None:
    score = planted.noisy({"e5m2": 0.05}, 0.01)
    found = make(score)
    assert found.reference == "bf16_adamw"
    row = rows_of(next(tables(reference.section(found, tmp_path))))["e5m2_manifold_adamw"]
    d = [score("e5m2", "manifold_adamw", s) - score("bf16", "adamw", s) for s in planted.SEEDS]
    low, high = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert row["Δ F1 micro, tuned"] == signed(float(np.mean(d)))
    assert row["95\N{NO-BREAK SPACE}% interval"] == f"{signed(low)} to {signed(high)}"
    assert row["Better than reference"] == "5 of 5"


def test_the_reference_is_the_plainest_baseline(make: Make) -> None:
    settings = [{"quantization.residency": r} for r in ("grid", "master")]
    found = make(formats=["e5m2", "bf16"], settings=settings, seeds=[0, 1])
    assert found.reference == "bf16_adamw_master"


# Provenance of numbers, and the choice of questions


def test_every_score_by_seed_leads_to_its_run(make: Make, tmp_path: Path) -> None:
    found = make(seeds=[0, 1])
    folder = tmp_path / "report"
    (table,) = tables(seeds.section(found, folder))
    assert len(table.rows) == 3 * 2
    for row in table.rows:
        for cell in row[2:4]:
            assert cell.href is not None
            lines = (
                (folder / cell.href).resolve().joinpath("metrics.jsonl").read_text().splitlines()
            )
            final = json.loads(lines[-1])["metrics"]["final/test/f1_micro_tuned"]
            assert float(cell.text) == pytest.approx(final, abs=5e-5)


def test_questions_can_be_chosen_by_name_and_number(make: Make, tmp_path: Path) -> None:
    found = make()
    document = build_document(found, tmp_path, ["Q5", "benefit"])
    assert [s.title for s in document.sections] == [
        benefit.TITLE,
        failures.TITLE,
        "Provenance",
        "How to repeat",
    ]
    assert set(NUMBERS.values()) <= set(QUESTIONS)
    whole = build_document(found, tmp_path)
    assert len(whole.sections) == len(QUESTIONS)
    assert whole.sections[0].title == "Controls"


def test_an_unknown_question_names_the_known_ones(make: Make, tmp_path: Path) -> None:
    found = make()
    with pytest.raises(UserError, match=r"unknown question 'benefits'\. Did you mean 'benefit'"):
        build_document(found, tmp_path, ["benefits"])
    with pytest.raises(UserError, match="q8"):
        build_document(found, tmp_path, ["q9"])


def test_a_suite_without_contrast_has_every_section(make: Make, tmp_path: Path) -> None:
    found = make(contrast=None)
    document = build_document(found, tmp_path)
    assert len(document.sections) == len(QUESTIONS)
    assert "declares no contrast" in text_of(benefit.section(found, tmp_path))


def test_many_groups_are_drawn_in_part_and_that_is_said(
    make: Make, fabricated: ModuleType, tmp_path: Path
) -> None:
    formats = [f"f{n}" for n in range(15)]
    found = make(
        lambda f, o, s: 0.5 + (0.01 * int(f[1:]) if o != "adamw" else 0),
        formats=formats,
        seeds=[0],
        more=lambda *_: [fabricated.line(1, "train", {"train/all/loss": 1.0})],
    )
    figure = next(b for b in reference.section(found, tmp_path).blocks if isinstance(b, Figure))
    assert len(figure.panels) == 12
    assert "Drawn are the 12 of 15 groups whose sides differ most." in figure.caption
    assert "f3" in figure.whole
    assert ">f2<" not in figure.whole

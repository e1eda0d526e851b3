"""The built-in sections pass the check that anyone's sections must pass, whatever a suite has or lacks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from altgrad_core.analysis.find import find
from altgrad_core.analysis.formats import format_table
from altgrad_core.interfaces.blocks import Block, Table
from altgrad_core.interfaces.section import Findings, Section
from altgrad_core.registry.catalog import catalog
from altgrad_core.report.build import build_document
from altgrad_core.report.document import Document
from altgrad_core.report.render import render_markdown
from altgrad_core.results.sources import read_one
from altgrad_core.testing.sections import check_section


def findings(folder: Path, *, live: bool = False) -> Findings:
    suite = read_one(folder)
    return find(suite, format_table(suite), live=live)


@pytest.fixture(scope="module")
def several(
    fabricated: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Findings, ...]:
    """A full suite, the same while it is watched, one seed, a divergence, a plan alone, nothing."""
    f, root = fabricated, tmp_path_factory.mktemp("sections")

    def full(fmt: str, optimizer: str, seed: int) -> list[str]:
        score = 0.5 + 0.01 * seed + (0.03 + 0.001 * seed) * (optimizer != "adamw") * (fmt == "e5m2")
        measured = {
            "rank__all__effective_rank": 40.0 - seed,
            "flips__all__stall_ratio": 0.99,
            "flips__all__flip_ratio": 0.1,
            "throughput__all__cumulative_samples_per_second": 100.0 + seed,
        }
        layers = {f"flips/encoder.layer.{k}.attention.q/stall_ratio": 0.1 * k for k in (0, 1)}
        return [
            *(f.line(step, "train", {"train/all/loss": 1 / step}) for step in (1, 50, 100)),
            f.line(50, "evaluation", {"validation/all/f1_micro_tuned": score - 0.1}),
            *(f.monitor_line(step, **measured) for step in (50, 100)),
            f.line(60, "monitor", layers),
            f.event_line(60, "overflow", "encoder.layer.0", "3 weights"),
            f.final_line(100, score),
        ]

    f.write_matrix(root / "full", ["bf16", "e0m7", "e1m6", "e3m4", "e5m2"], range(5), full)
    f.write_matrix(root / "one", ["bf16", "e3m4", "e5m2"], [0], full)
    broken = [
        (side, f.write_run(root / "broken", "e5m2", side, 0, status=status, step=7, lines=[
            f.line(1, "train", {"train/all/loss": math.inf})]))
        for side, status in (("adamw", "diverged"), ("manifold_adamw", "error"))
    ]  # fmt: skip
    f.write_plan(root / "broken", [f.cell("e5m2", side, 0, run) for side, run in broken])
    f.write_plan(root / "alone", [f.cell("e5m2", "adamw", 0, None, skip="needs a CUDA device")])
    f.write_plan(root / "nothing", [], contrast=None)
    names = ("one", "broken", "alone", "nothing")
    watched = findings(root / "full", live=True)
    return findings(root / "full"), watched, *(findings(root / name) for name in names)


@pytest.mark.parametrize("name", catalog().names("section"))
def test_it_passes_the_check(name: str, several: tuple[Findings, ...]) -> None:
    check_section(catalog().build("section", name), *several)


class Writes(Section):
    """Changes a table that the next section reads, by less than what passes for rounding."""

    title = "Writes"

    def build(self, found: Findings) -> list[Block]:
        found.effects.loc[:, "gain"] *= 1 + 1e-9
        return []


def test_a_section_that_changes_a_table_is_found(several: tuple[Findings, ...]) -> None:
    found = replace(several[0], effects=several[0].effects.copy(deep=True))
    with pytest.raises(AssertionError, match="the table effects was changed"):
        check_section(Writes(), found)


@pytest.mark.parametrize("name", ["benefit", "controls", "results"])
def test_it_has_something_to_say_of_a_full_suite(name: str, several: tuple[Findings, ...]) -> None:
    assert catalog().build("section", name).build(several[0])


@pytest.fixture(scope="module")
def full_report(several: tuple[Findings, ...]) -> Document:
    return build_document(several[0])


def test_one_seed_is_not_spoken_of_as_several(
    several: tuple[Findings, ...], full_report: Document
) -> None:
    one_seed = build_document(several[2])
    texts = [render_markdown(document, Path()) for document in (full_report, one_seed)]
    for words in (
        "interval",
        "mean over seeds",
        "steps, seeds and",
        "seeds thin",
        "± standard",
        "not adj",
    ):
        assert words in texts[0]
        assert words not in texts[1]


def test_the_conditions_are_tabled_once(
    several: tuple[Findings, ...], full_report: Document
) -> None:
    blocks = [block for part in full_report.parts for block in part.blocks]
    tables = [block for block in blocks if isinstance(block, Table)]
    (main,) = (one for one in tables if one.columns[0].title == "Condition")
    shown = {column.title: place for place, column in enumerate(main.columns)}
    told = {row[0].text: row for row in main.rows}
    assert len(told) == len(several[0].conditions)
    assert told["bf16_adamw"][shown["Over bf16_adamw"]].text == "–"
    assert told["e5m2_manifold_adamw"][shown["Over bf16_adamw"]].text == "+0.0320"
    assert told["e5m2_manifold_adamw"][shown["Rank kept (%)"]].text == "100"

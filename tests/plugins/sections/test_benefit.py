"""What the section on the benefit says beside its numbers."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from planted import judged, make_suite, noisy

from altgrad_core.interfaces.blocks import Bullets, Code, Paragraph, Table
from altgrad_core.interfaces.section import Findings
from altgrad_core.registry.catalog import catalog
from altgrad_core.report.document import to_show
from altgrad_plugins.sections.more_seeds import with_seeds

RUN = "altgrad-bench run suites/quickstart.yaml"


def blocks(found: Findings) -> list[object]:
    return list(catalog().build("section", "benefit").build(found))


def with_command(seeds: range, **more: object) -> Findings:
    suite = make_suite(noisy({}, 0.01), seeds=seeds, **more)  # type: ignore[arg-type]
    assert suite.plan is not None
    return judged(replace(suite, plan=suite.plan.model_copy(update={"command": RUN})))


def commands(found: Findings) -> list[str]:
    return [block.text for block in blocks(found) if isinstance(block, Code)]


class TestMoreSeeds:
    def test_too_few_seeds_come_with_the_command_that_adds_them(self) -> None:
        found = with_command(range(1))
        assert commands(found) == [f"{RUN} --set 'seeds=[0,1,2,3,4]'"]
        said = " ".join(b.text for b in blocks(found) if isinstance(b, Paragraph))
        assert "With 1 seed nothing can be tested: that takes at least 5." in said
        assert "exploratory, since only one seed was declared" in said

    def test_enough_seeds_come_without(self) -> None:
        assert commands(with_command(range(5))) == []

    def test_nor_is_it_given_once_they_were_added(self) -> None:
        found = with_command(range(5), declared={"seeds": (0,)})
        assert found.pairs["seed"].unique().tolist() == [0]
        assert commands(found) == []

    def test_a_suite_run_from_python_has_none(self) -> None:
        found = judged(make_suite(noisy({}, 0.01), seeds=range(2)))
        assert commands(found) == []
        assert any("more seeds" in b.text for b in blocks(found) if isinstance(b, Paragraph))

    @pytest.mark.parametrize("old", ["--set seeds=3", "--set 'seeds=[3]'", "--set=seeds=3"])
    def test_seeds_that_were_given_are_replaced(self, old: str) -> None:
        made = with_seeds(f"altgrad-bench run smoke {old} --set training.max_steps=50", [3])
        expected = "altgrad-bench run smoke --set training.max_steps=50"
        assert made == f"{expected} --set 'seeds=[3,0,1,2,4]'"


@pytest.mark.parametrize(("others", "left"), [(2, 0), (6, 0), (17, 11)])
def test_other_scores_are_no_wider_than_a_page(others: int, left: int) -> None:
    found = judged(make_suite(noisy({}, 0.01)))
    rows = [
        (group, f"final/test/score_{k}", 0.1, 0.1, 5)
        for k in range(others)
        for group in found.effects["group"]
    ]
    table = pd.DataFrame(rows, columns=["group", "metric", "delta", "gain", "n"])
    made = blocks(replace(found, companions=table))
    (shown,) = (b for b in made if isinstance(b, Table) and "other scores" in b.caption)
    assert len(shown.columns) == 1 + others - left
    assert ("more scores: companions.csv" in shown.caption) == bool(left)


class TestTables:
    """The formats of the ladder, of which bf16 is the reference and e1m6 the same on both sides."""

    @staticmethod
    def made(seeds: int) -> tuple[list[object], Table, Table]:
        even = noisy({"e5m2": 0.05}, 0.004)

        def score(fmt: str, side: str, seed: int) -> float | None:
            return even(fmt, "old" if fmt == "e1m6" else side, seed)

        found = judged(make_suite(score, formats=("bf16", "e5m2", "e1m6"), seeds=range(seeds)))
        made = blocks(found)
        effects, excess = [b for b in made if isinstance(b, Table)][:2]
        return made, effects, excess

    def test_a_caption_explains_no_column_that_is_not_there(self) -> None:
        _, few, _ = self.made(1)
        assert "p (" not in to_show(few).caption
        assert "Std" not in to_show(few).caption
        assert "Seeds needed" not in to_show(few).caption
        _, enough, _ = self.made(5)
        for told in ("Std:", "p (t):", "p (Holm):", "p (sign flips):", "Seeds needed:"):
            assert told in to_show(enough).caption

    def test_only_what_is_tested_can_need_the_grid(self) -> None:
        _, effects, excess = self.made(5)
        assert [row[0].text for row in effects.rows] == ["bf16", "e5m2", "e1m6"]
        assert [row[0].text for row in excess.rows] == ["e5m2"]

    def test_each_control_is_called_what_it_is(self) -> None:
        made, _, _ = self.made(5)
        assert isinstance(made[0], Paragraph)
        assert made[0].text == (
            "Verdicts on 1 format: benefit in 1 (e5m2). Outside the family: bf16 (the reference); "
            "e1m6 (equal by construction)."
        )

    def test_too_few_seeds_are_named_once(self) -> None:
        made, _, _ = self.made(1)
        assert not any(isinstance(block, Bullets) for block in made)

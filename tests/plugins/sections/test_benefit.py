"""What the section on the benefit says beside its numbers."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from planted import judged, make_suite, noisy

from altgrad_core.interfaces.blocks import Code, Paragraph, Table
from altgrad_core.interfaces.section import Findings
from altgrad_core.registry.catalog import catalog
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
        assert "exploratory, since one was declared" in said

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

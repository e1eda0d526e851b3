"""What stands beside the controls."""

from __future__ import annotations

from planted import effect, judged, make_suite, noisy

from altgrad_core.analysis.words import score
from altgrad_core.interfaces.blocks import Table
from altgrad_core.registry.catalog import catalog


def test_a_placebo_stands_beside_the_treatment_that_it_is_one_of() -> None:
    sides = ({"type": "old"}, *({"type": "new", "stiffness": s} for s in ("grid", "permuted")))
    found = judged(make_suite(noisy({"e5m2": 0.05}, 0.01), sides=sides))
    *_, table = catalog().build("section", "controls").build(found)
    assert isinstance(table, Table)
    place = [column.title for column in table.columns].index("Gain of the treatment")
    told = {row[0].text: row[place].text for row in table.rows}
    treated = effect(found, "e5m2, stiffness grid")
    assert told["e5m2, stiffness permuted"] == score(treated["gain"], signed=True)

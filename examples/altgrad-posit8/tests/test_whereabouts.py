from __future__ import annotations

import pandas as pd
from altgrad_posit8.whereabouts import Whereabouts

from altgrad_core.interfaces import Findings, NoSettings
from altgrad_core.testing.sections import check_section

TABLES = (
    *("runs", "conditions", "pairs", "effects", "companions", "twins"),
    *("layers", "events", "curves", "tuning", "formats"),
)


def findings(layers: pd.DataFrame) -> Findings:
    tables = {name: pd.DataFrame() for name in TABLES}
    tables |= {"layers": layers, "formats": pd.DataFrame({"sqnr": [37.0]}, index=["posit8"])}
    return Findings("toy", None, (), True, (), **tables)


def measured() -> pd.DataFrame:
    rows = [
        (fmt, f"layer.{k}.weight", f"range/weight_log2_{p}", place - k)
        for fmt, places in (("posit8", (-18.0, -12.5, -10.0)), ("e4m3", (-9.0, -3.0, 0.0)))
        for p, place in zip(("p1", "p50", "p99"), places, strict=True)
        for k in (0, 1)
    ]
    rows.append(("e4m3", "layer.0.weight", "flips/stall_ratio", 0.5))
    return pd.DataFrame(rows, columns=["format", "layer", "metric", "last"])


def test_the_contract() -> None:
    check_section(Whereabouts(NoSettings()), findings(pd.DataFrame()), findings(measured()))


def test_what_it_says() -> None:
    said, shown = Whereabouts(NoSettings()).build(findings(measured()))
    assert "posit8 13.0 and e4m3 3.5" in said.text
    assert [cell.text for cell in shown.rows[0]] == ["posit8", "-18.5", "-13.0", "-10.5", "37.0"]
    assert [cell.text for cell in shown.rows[1]] == ["e4m3", "-9.5", "-3.5", "-0.5", "–"]
    (nothing,) = Whereabouts(NoSettings()).build(findings(pd.DataFrame()))
    assert "monitor `range`" in nothing.text

"""What is said of the formats of each type of layer."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest
from planted import judged, make_suite, noisy

from altgrad_core.interfaces.blocks import Paragraph
from altgrad_core.registry.catalog import catalog


@pytest.mark.parametrize(
    ("margin", "said"),
    [
        (0.2, "By stall ratio, e5m2 is best in every type of layer, of 2 formats."),
        (0.001, "Only e5m2 is left, so there is nothing to rank."),
    ],
)
def test_one_format_alone_is_not_the_best(margin: float, said: str) -> None:
    even = noisy({}, 0.0)

    def score(fmt: str, side: str, seed: int) -> float | None:
        return (even(fmt, side, seed) or 0.0) - 0.1 * (fmt == "e3m4")

    found = judged(make_suite(score, margin=margin))
    runs = found.runs[found.runs["planned"]]
    layers = pd.DataFrame(
        {
            "id": runs["id"],
            "condition": runs["condition"],
            "format": runs["format"],
            "side": ["baseline" if "old" in c else "treatment" for c in runs["condition"]],
            "layer": "encoder.q",
            "metric": "flips/stall_ratio",
            "mean": [0.5 if fmt == "e5m2" else 0.7 for fmt in runs["format"]],
        }
    )
    first, *_, last = catalog().build("section", "layers").build(replace(found, layers=layers))
    assert isinstance(first, Paragraph)
    assert said in first.text
    more = "More to judge by: the monitor"
    assert last == Paragraph(f"{more}s gradient_error and updates.")
    layers = pd.concat([layers, layers.assign(metric="gradient_error/relative_error")])
    *_, last = catalog().build("section", "layers").build(replace(found, layers=layers))
    assert last == Paragraph(f"{more} updates.")

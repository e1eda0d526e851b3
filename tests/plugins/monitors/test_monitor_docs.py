"""docs/monitors.md keeps its word: its example works, and its table has every metric."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.interfaces.task import Batch
from altgrad_core.testing.monitors import check_monitor
from altgrad_plugins.monitors import altgrad_monitors

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "monitors.md").read_text()
PAGES = "\n".join(page.read_text() for page in sorted((DOCS / "monitors").glob("*.md")))


def test_the_example_is_a_good_monitor(bench: Any, two_layers: Any) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    check_monitor(names["ZeroRungs"]())
    metrics = bench(names["ZeroRungs"](), two_layers("e0m7")).step()
    assert set(metrics) == {f"zeros/{name}/share" for name in ("0.weight", "2.weight", "all")}


def probe(samples: int) -> Batch:
    return Batch({"inputs": torch.ones(samples, 6)}, samples, samples)


def test_every_metric_is_in_the_table(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    seen = set()
    for offer in altgrad_monitors():
        model = two_layers("e5m2", activation_format=load_format("e5m2"))
        place = bench(load_monitor(offer.name), model, max_steps=2, probe=probe)
        for step in (1, 2):
            place.clock.start()
            place.clock.stop(samples=1, tokens=1)
            seen |= set(place.step(step, inputs=torch.ones(1, 6)))
    documented = set(re.findall(r"[`/]([a-z_0-9]+)`", PAGES))
    metrics = {name.split("/")[2].removesuffix("_rate") for name in seen}
    assert len(metrics) > 60
    assert metrics - documented == set()


def test_every_monitor_has_its_row_with_its_default_interval() -> None:
    for offer in altgrad_monitors():
        if offer.intervenes:
            assert f"`{offer.name}`" in PAGES
            continue
        interval = offer.settings().interval  # type: ignore[attr-defined]
        assert f"| `{offer.name}` | {interval} |" in PAGE
        for row in re.findall(rf"^\| `{offer.name}/.*\| ([0-9]+) \|$", PAGES, re.MULTILINE):
            assert int(row) == interval, offer.name

"""Nothing here makes the host wait for the device: no operation whose result it would have to read.

Left out are the monitors that read what they measure, for an event or a solver on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor


def test_the_watch_sees_what_waits(watch_waits: Any) -> None:
    x = torch.arange(4.0)
    with watch_waits() as watch:
        float(x[0])
        x[x > 1]
        x.nonzero()
        torch.bincount(x.int())
        x.new_tensor(1.0)
        torch.nanmedian(x)
    assert len(watch.seen) >= 6


@pytest.mark.parametrize(
    ("monitor", "settings"),
    [
        ("flips", {}),
        ("stiffness", {"spearman": True}),
        ("distance", {}),
        ("motion", {}),
        ("reversals", {}),
        ("drift", {}),
        ("updates", {}),
        ("uniformity", {}),
        ("gradients", {}),
        ("amax", {}),
        ("range", {}),
        ("overflow", {"overflow_rate": None, "underflow_rate": None}),
        ("stalls", {"threshold": None}),
        ("rank", {"estimator": "power", "collapse": 0}),
        ("gradient_clip", {"interval": 1000}),
    ],
)
@pytest.mark.parametrize("residency", ["master", "grid"])
def test_no_monitor_waits(
    monitor: str,
    settings: dict[str, Any],
    residency: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
    watch_waits: Any,
) -> None:
    place = bench(
        load_monitor(monitor, **{"interval": 1} | settings),
        two_layers("e5m2", residency=residency),
    )
    seen, watched = [], place.monitor

    def watch(hook: str) -> None:
        inner = getattr(watched, hook)

        def outer(*arguments: Any) -> Any:
            with watch_waits() as found:
                result = inner(*arguments)
            seen.append((hook, found.seen))
            return result

        setattr(watched, hook, outer)

    for hook in ("before_update", "after_update"):
        watch(hook)
    place.step(1, inputs=torch.randn(3, 6), change=lambda n, w: w * 1.1)  # the formats' tables
    seen.clear()
    place.step(2, inputs=torch.randn(3, 6), change=lambda n, w: w * 1.1)
    assert seen == [("before_update", []), ("after_update", [])]

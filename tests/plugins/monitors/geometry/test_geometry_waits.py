"""Nothing here makes the host wait for the device: no operation whose result it would have to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor

WAITING = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::bincount",
    "aten::masked_select",
    "aten::unique",
    "aten::_unique",
    "aten::is_nonzero",
    "aten::equal",
    "aten::repeat_interleave.Tensor",
)


class Watch(TorchDispatchMode):
    """Notes the operations that would wait on a device, among them an index by a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        masks = name.startswith("aten::index") and any(
            isinstance(i, torch.Tensor) and i.dtype == torch.bool
            for i in (args[1] if isinstance(args[1], list | tuple) else [])
        )
        if name.startswith(WAITING) or masks:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_the_watch_sees_what_waits() -> None:
    x = torch.arange(4.0)
    with Watch() as watch:
        float(x[0])
        x[x > 1]
        x.nonzero()
        torch.bincount(x.int())
    assert len(watch.seen) >= 4


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
) -> None:
    place = bench(
        load_monitor(monitor, interval=1, **settings), two_layers("e5m2", residency=residency)
    )
    seen, watched = [], place.monitor

    def watch(hook: str) -> None:
        inner = getattr(watched, hook)

        def outer(*arguments: Any) -> Any:
            with Watch() as found:
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

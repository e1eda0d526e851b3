"""The threshold against numpy, and what it promises: the median survives the format."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.quantization.surgery import change_format
from altgrad_core.testing.monitors import check_monitor
from altgrad_core.training.monitoring import MonitorPanel
from altgrad_plugins.monitors import altgrad_monitors


def heavy(seed: int, shape: tuple[int, ...] = (7, 6), spread: float = 3.0) -> Tensor:
    """A gradient whose few large entries are far above the many small ones."""
    own = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=own) * (spread * torch.randn(shape, generator=own)).exp()


def as_float32(value: float) -> float:
    """inf beyond the largest float32, which is no limit."""
    return float(torch.tensor(value, dtype=torch.float64).float())


def coarser(fmt: Format) -> float:
    """The smallest magnitude on the side of zero where it is the larger one."""
    if fmt.bits > 8:
        return fmt.min_positive
    values = fmt.code_values().double()
    sides = [side[side > 0].min() for side in (values, -values) if (side > 0).any()]
    return float(max(sides))


def by_hand(gradient: Tensor, fmt: Format, margin: float) -> tuple[float, Tensor, int]:
    """Threshold, clipped gradient and count, by sorting."""
    values = gradient.double().numpy()
    sizes = np.sort(np.abs(values[np.isfinite(values) & (values != 0)]))
    limit = sizes[(len(sizes) - 1) // 2] * (fmt.max_finite / coarser(fmt)) * 2.0**-margin
    beyond = np.isfinite(values) & (np.abs(values) > limit)
    clipped = np.where(beyond, np.sign(values) * limit, values)
    return float(limit), torch.from_numpy(clipped), int(beyond.sum())


TABLES = {
    "table": [0.0, 0.25, -0.25, 1.0, 3.0, -3.0, 0.5, -0.5],
    "lopsided": [0.0, 0.25, -2.0, 1.0, 3.0, -3.0, 0.5, 6.0],
    "one-sided": [0.0, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 6.0],
}


@pytest.mark.parametrize("name", ["e0m7", "e2m5", "e3m4", "e5m2", "e7m0", "bf16", *TABLES])
@pytest.mark.parametrize("margin", [-1.0, 1.0, 4.0])
def test_each_layer_is_clipped_at_its_own_threshold(
    name: str,
    margin: float,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    fmt = load_format("table", values=TABLES[name]) if name in TABLES else load_format(name)
    place = bench(load_monitor("gradient_clip", margin=margin), two_layers(fmt))
    gradients = {"0.weight": heavy(0), "2.weight": heavy(1, (5, 7)) * 1e-3}
    gradients["0.weight"][2] = 0.0
    before = {name: gradient.clone() for name, gradient in gradients.items()}
    metrics = place.step(gradients=gradients)
    total = 0
    for layer, gradient in before.items():
        limit, clipped, count = by_hand(gradient, fmt, margin)
        assert metrics[f"clip/{layer}/threshold"] == pytest.approx(as_float32(limit), rel=1e-6)
        assert metrics[f"clip/{layer}/clipped"] == count
        found = place.weights[layer].parameter.grad.double()
        assert torch.allclose(found, clipped, rtol=1e-6, atol=0)
        same = gradient.abs() < limit * (1 - 1e-6)
        assert torch.equal(found[same].float(), gradient[same])
        total += count
    assert metrics["clip/all/clipped"] == total
    narrow, wide = name in ("e0m7", "table"), name in ("e5m2", "e7m0", "bf16")
    assert total > 0 if narrow else total == 0 or not wide
    kinds = [event.kind for event in place.events]
    assert set(kinds) == ({"gradient_clipped"} if total else set())


@pytest.mark.parametrize("name", ["e0m7", "e1m6", "e2m5", "e3m4"])
def test_after_it_the_median_is_on_the_grid(
    name: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    """At the power-of-two scale of its amax: a gradient without it loses more than half its entries."""
    fmt = load_format(name)

    def lost(gradient: Tensor) -> float:
        scale = 2.0 ** math.ceil(math.log2(float(gradient.abs().max()) / fmt.max_finite))
        return float((fmt.round(gradient / scale) == 0).float().mean())

    place = bench(load_monitor("gradient_clip", interval=1), two_layers(name))
    helped = 0
    for seed in range(40):
        gradient = heavy(seed, spread=2.0 + seed / 8)
        before = lost(gradient)
        place.step(seed + 1, gradients={"0.weight": gradient})
        after = lost(gradient)
        assert after < 0.5
        helped += before > 0.5
    assert helped > 0


def test_wide_formats_leave_gradients_alone_and_so_do_nan_and_zero(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("gradient_clip", interval=1), two_layers("e0m7"))
    broken = heavy(0)
    broken[0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    broken[1, 0] = 1e9
    place.step(1, gradients={"0.weight": broken, "2.weight": torch.zeros(5, 7)})
    assert torch.equal(broken[0, 1:3], torch.tensor([math.inf, -math.inf]))
    assert broken[0, 0].isnan()
    assert 0 < float(broken[1, 0]) < 1e6
    assert place.last.metrics["clip/2.weight/clipped"] == 0
    assert math.isnan(place.last.metrics["clip/2.weight/threshold"])
    nothing = torch.full((7, 6), math.nan)
    place.step(2, gradients={"0.weight": nothing})
    assert nothing.isnan().all()


def test_it_acts_in_every_step_and_counts_between_reports_and_restarts(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    def build() -> Any:
        monitor = load_monitor("gradient_clip", interval=4)
        return bench(monitor, two_layers("e0m7"), max_steps=9)

    place, total, events = build(), 0, []
    for step in range(1, 10):
        gradient = heavy(step) if step > 1 else torch.ones(7, 6)
        total += by_hand(gradient, load_format("e0m7"), 1.0)[2]
        metrics = place.step(step, gradients={"0.weight": gradient})
        events += [(step, event.layer) for event in place.last.events]
        if step in (1, 4, 8, 9):
            assert metrics["clip/0.weight/clipped"] == total
            assert "clip/2.weight/threshold" not in metrics
        else:
            assert metrics == {}
        file = io.BytesIO()
        torch.save(place.panel.state_dict(), file)
        file.seek(0)
        place = build()
        place.panel.load_state_dict(torch.load(file, weights_only=True))
    assert total > 5
    assert events == [(4, "0.weight")]


def test_an_exchanged_format_brings_its_own_threshold(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    place = bench(load_monitor("gradient_clip", interval=1), two_layers("e0m7"))
    first = place.step(1, gradients={"0.weight": heavy(0)})["clip/0.weight/threshold"]
    change_format(place.weights["0.weight"], load_format("e3m4"))
    second = place.step(2, gradients={"0.weight": heavy(0)})["clip/0.weight/threshold"]
    assert second / first == pytest.approx(31 * 64 / 127, rel=1e-6)


def test_other_monitors_see_the_clipped_gradient(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("gradients"), two_layers("e0m7"))
    clip = load_monitor("gradient_clip")
    place.panel = MonitorPanel([("gradients", place.monitor), ("clip", clip)])
    place.panel.start(place.run)
    metrics = place.step(gradients={"0.weight": heavy(0)})
    assert metrics["gradients/0.weight/linf"] == metrics["clip/0.weight/threshold"]


@pytest.mark.parametrize("name", ["gradient_clip", "mantissa_shift"])
def test_interventions_are_offered_as_such(name: str, load_monitor: Callable[..., Monitor]) -> None:
    [offer] = [offer for offer in altgrad_monitors() if offer.name == name]
    assert offer.intervenes
    assert load_monitor(name).intervenes


def test_where_it_need_not_act_it_is_a_good_monitor(load_monitor: Callable[..., Monitor]) -> None:
    check_monitor(load_monitor("gradient_clip", interval=3, margin=-100.0))
    check_monitor(load_monitor("mantissa_shift", interval=3, on_nan=()))

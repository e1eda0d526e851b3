"""Partition-relative clipping against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor


@pytest.mark.parametrize("name", ["e0m7", "e3m4"])
@pytest.mark.parametrize("margin", [0.0, 1.0, 3.0])
def test_entries_beyond_the_formats_range_above_the_median_are_clipped(
    name: str,
    margin: float,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    place = bench(load_monitor("gradient_clip", interval=1, margin=margin), two_layers(name))
    gradient = torch.randn(7, 6, generator=torch.Generator().manual_seed(2))
    gradient[0, 0], gradient[3, 3], gradient[6] = 1e5, -1e6, 0.0
    plain = gradient.numpy().copy()
    other = torch.ones(5, 7)
    metrics = place.step(gradients={"0.weight": gradient, "2.weight": other})
    fmt = load_format(name)
    magnitudes = np.sort(np.abs(plain[plain != 0]))
    median = magnitudes[(len(magnitudes) - 1) // 2]
    limit = median * fmt.max_finite / fmt.min_positive / 2**margin
    assert metrics["clip/0.weight/threshold"] == pytest.approx(limit, rel=1e-5)
    assert metrics["clip/0.weight/clipped"] == (np.abs(plain) > limit).sum() == 2
    expected = np.clip(plain, -limit, limit)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-5)
    assert torch.equal(other, torch.ones(5, 7))
    assert metrics["clip/all/clipped"] == 2
    assert [(event.kind, event.layer) for event in place.events] == [
        ("gradient_clipped", "0.weight")
    ]


def test_counts_add_up_and_what_is_not_finite_stays_for_others_to_see(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("gradient_clip", interval=1), two_layers("e0m7"))
    for step in (1, 2, 3):
        gradient = torch.ones(7, 6)
        gradient[0, 0], gradient[0, 1] = 1e9, math.nan
        metrics = place.step(step, gradients={"0.weight": gradient})
        assert gradient[0, 1].isnan()
        assert float(gradient[0, 0]) == pytest.approx(127 / 2)
        assert metrics["clip/0.weight/clipped"] == step

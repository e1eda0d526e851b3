"""How long the step of every installed optimizer takes, beside torch's. Skipped unless ``--benchmark-only`` is given.

What ``altgrad-bench speed optimizer`` times: the step alone, on masters and on weights that live on their grid.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from altgrad_core.execution.optimizer_speed import MASTER, TORCH, WEIGHTS, step_calls
from altgrad_core.registry.catalog import catalog


@pytest.mark.parametrize("name", [TORCH, *catalog().names("optimizer")])
@pytest.mark.parametrize("size", ["small", "base"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_optimizer(benchmark: BenchmarkFixture, name: str, size: str, weights: str) -> None:
    torch.set_num_threads(1)
    if name == TORCH and weights != MASTER:
        pytest.skip("torch's own knows no grid")
    calls = step_calls("e5m2", None if name == TORCH else name, size=size, weights=[weights])
    benchmark.group = f"step, {size}, {weights}"
    benchmark(calls[weights])

"""Samples per second of a whole training step, for each format and optimizer. Run with ``make throughput``.

The step is that of ``altgrad-bench speed formats``: what differs between the benchmarks is the format and
the optimizer alone. Formats are simulated, so this is the harness's speed, not hardware's.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from altgrad_core import load_format
from altgrad_core.execution.format_work import BATCH, training_step
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.registry.catalog import catalog

FORMATS = ["fp32", "bf16", "e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
OPTIMIZERS = ["adamw", "manifold_adamw", "grid_optim"]


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.benchmark(group="training step")
def test_training_step(benchmark: BenchmarkFixture, format_name: str, optimizer_name: str) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        geometry = {g.parameter: g for g in weight_geometry(model).values()}
        plugin = catalog().build("optimizer", optimizer_name, {})
        groups = [{"params": list(model.parameters())}]
        generator = torch.Generator(device).manual_seed(0)
        return plugin.build(groups, geometry, learning_rate=1e-4, generator=generator)

    step = training_step(load_format(format_name), device, optimizer)

    def waited() -> None:
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    benchmark.extra_info["samples_per_step"] = BATCH
    benchmark.pedantic(waited, rounds=20, warmup_rounds=3)

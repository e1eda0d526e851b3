"""Samples per second of a whole training step, for each format and optimizer. Run with ``make throughput``.

The model is an encoder of the quickstart's size on random tokens: what differs between the benchmarks is
the format and the optimizer alone. Formats are simulated, so this is the harness's speed, not hardware's.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from altgrad_core import load_format, quantize_model
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.registry.catalog import catalog

BATCH, LENGTH, WIDTH, LABELS = 32, 48, 128, 60
FORMATS = ["fp32", "bf16", "e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
OPTIMIZERS = ["adamw", "manifold_adamw", "grid_optim"]


def encoder() -> nn.Module:
    block = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(block, 2), nn.Linear(WIDTH, LABELS))


def training_step(
    format_name: str, optimizer_name: str, device: torch.device
) -> Callable[[], None]:
    torch.manual_seed(0)
    model = encoder()
    quantize_model(model, load_format(format_name))
    model.to(device)
    geometry = {g.parameter: g for g in weight_geometry(model).values()}
    generator = torch.Generator(device).manual_seed(0)
    optimizer = (
        catalog()
        .build("optimizer", optimizer_name, {})
        .build(
            [{"params": list(model.parameters())}],
            geometry,
            learning_rate=1e-4,
            generator=generator,
        )
    )
    x = torch.randn(BATCH, LENGTH, WIDTH, device=device)
    y = (torch.rand(BATCH, LABELS, device=device) < 0.05).float()

    def step() -> None:
        with hold_weights(model):
            logits = model(x).mean(1)
            nn.functional.binary_cross_entropy_with_logits(logits, y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.benchmark(group="training step")
def test_training_step(benchmark: BenchmarkFixture, format_name: str, optimizer_name: str) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = training_step(format_name, optimizer_name, device)
    step()
    benchmark.extra_info["samples_per_step"] = BATCH
    benchmark.pedantic(step, rounds=20, warmup_rounds=3)

"""How fast each format rounds a million float32. Skipped unless ``--benchmark-only`` is given.

Each format is timed by its own method, and by the base class's derivation from its table of values:
the second is what a format pays that overrides nothing.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from altgrad_core import load_format
from altgrad_core.interfaces.format import Format

FORMATS = ["fp32", "bf16", "e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
COUNT = 1_000_000

devices = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)


def values(device: str) -> torch.Tensor:
    """Normal numbers of many magnitudes, so that every branch of a format is met."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(2, COUNT, generator=generator)
    return (spread[0] * torch.exp2(2 * spread[1])).to(device)


def time_rounding(
    benchmark: BenchmarkFixture, fmt: Format, device: str, rounding: str = "nearest"
) -> None:
    x = values(device)
    generator = torch.Generator(device).manual_seed(0)

    def call() -> torch.Tensor:
        result = fmt.round(x, rounding, generator)
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    rounded = benchmark(call)
    benchmark.extra_info["values_per_second"] = COUNT / benchmark.stats.stats.median
    assert rounded.shape == x.shape


@devices
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.benchmark(group="round to nearest, 1M float32")
def test_round(benchmark: BenchmarkFixture, name: str, device: str) -> None:
    time_rounding(benchmark, load_format(name), device)


@devices
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.benchmark(group="round stochastically, 1M float32")
def test_round_stochastically(benchmark: BenchmarkFixture, name: str, device: str) -> None:
    time_rounding(benchmark, load_format(name), device, "stochastic")


@devices
@pytest.mark.parametrize("name", ["e0m7", "e3m4", "e5m2", "e7m0"])
@pytest.mark.benchmark(group="round to nearest by table, 1M float32")
def test_round_by_table(benchmark: BenchmarkFixture, name: str, device: str) -> None:
    table = load_format("table", values=load_format(name).code_values().tolist())
    time_rounding(benchmark, table, device)

"""How fast every installed format is. Skipped unless ``--benchmark-only`` is given.

Each kind of work is a group: all formats, and what they are compared with (a plain copy of the tensor, or
the layer and the step in float32). ``table of …`` is a format of the ladder by the base class's derivation
from its values: what a format pays that overrides nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from altgrad_core import load_format
from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.registry.catalog import catalog
from altgrad_core.testing.benchmarks import ELEMENTS, WORK, format_benchmarks

PLAIN, TABLE = "plain", "table of e4m3"

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


def built(name: str) -> Format | None:
    """Skips what cannot be built without settings."""
    if name == TABLE:
        return load_format("table", values=load_format("e4m3").code_values().nan_to_num(0).tolist())
    try:
        return None if name == PLAIN else load_format(name)
    except UserError as error:
        pytest.skip(str(error))


def timed(name: str, work: str, device: str) -> Callable[[], object]:
    fmt = built(name)
    calls = format_benchmarks(fmt, device, names=[work])
    return dict(calls).get(work) or dict(calls)["copy"]


@devices
@pytest.mark.parametrize("name", [PLAIN, TABLE, *catalog().names("format")])
@pytest.mark.parametrize("work", WORK)
def test_format(benchmark: BenchmarkFixture, name: str, work: str, device: str) -> None:
    benchmark.group = f"{work}, {device}"
    benchmark.extra_info["elements"] = ELEMENTS
    benchmark(timed(name, work, device))

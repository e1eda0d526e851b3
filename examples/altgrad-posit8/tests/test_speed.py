"""Skipped in ordinary runs; ``pytest --benchmark-only --benchmark-autosave`` measures. See the README."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from altgrad_posit8.posit8 import Posit8

from altgrad_core.testing.benchmarks import ELEMENTS, WORK, format_benchmarks


@pytest.mark.parametrize("work", WORK)
def test_speed(benchmark: Callable[..., Any], work: str) -> None:
    torch.set_num_threads(1)
    elements = int(os.environ.get("ELEMENTS", ELEMENTS))
    ((_, call),) = format_benchmarks(Posit8(), elements=elements, names=[work])
    benchmark.group = work
    benchmark(call)

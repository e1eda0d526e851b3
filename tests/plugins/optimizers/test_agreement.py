"""The compiled step is really taken: without this, a kernel that is wrong would make its own tests skip."""

from __future__ import annotations

import platform

import pytest
import torch

from altgrad_core.interfaces import backend
from altgrad_plugins.optimizers import agreement


@pytest.mark.skipif(backend.cpu_backend() != "numba", reason="numba is not installed")
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64")
    or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="what is known holds for x86 with AVX2 or AVX512",
)
def test_it_repeats_the_torch_at_hand() -> None:
    assert agreement.torch_lanes() in (8, 16)

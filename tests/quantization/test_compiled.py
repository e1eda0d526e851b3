"""Under ``torch.compile`` every format rounds as it does without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

NAMES = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0", "bf16", "fp32"]
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


def awkward() -> Tensor:
    """Numbers, midpoints and specials; no subnormals, which a CPU may flush."""
    torch.manual_seed(0)
    steps = torch.arange(-300, 300) / 128
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 3.4e38, 1.001, 2.0**-100])
    return torch.cat([steps, torch.randn(300) * 2.0 ** torch.randint(-20, 20, (300,)), special])


def test_rounding() -> None:
    x, formats = awkward(), [load_format(name) for name in NAMES]

    def rounded(x: Tensor) -> list[Tensor]:
        return [fmt.round(x) for fmt in formats]

    for fmt, found in zip(formats, torch.compile(rounded, fullgraph=True)(x), strict=True):
        expected = fmt.round(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True, msg=fmt.name)
        assert torch.equal(torch.signbit(found)[~x.isnan()], torch.signbit(expected)[~x.isnan()])


@pytest.mark.parametrize(
    ("name", "options"), [("e4m3", {"mode": "delayed", "power_of_two": False}), ("bf16", {})]
)
def test_a_training_step(name: str, options: dict[str, Any]) -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
        fmt = load_format(name)
        quantize_model(model, fmt, activation_format=fmt, scaling=ScalingSettings(**options))
        run = torch.compile(model, fullgraph=True) if compiled else model
        for size in (1.0, 5.0):
            run(size * torch.linspace(-1, 1, 16).view(2, 8)).square().sum().backward()
        found.append([p.grad for p in model.parameters()] + list(model.buffers()))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

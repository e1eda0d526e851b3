"""All weights of a model settled together, step after step, by a GPU's kernels and by compiled ones.

The bits are those of torch's operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces import backend
from altgrad_core.quantization.geometry import scales_of, weight_geometry
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

LADDER = ("e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0")
SPECIAL = {"overflow": "special"}
GRIDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in (*LADDER, "bf16")),
    ("e4m3", SPECIAL),
    ("e5m2", SPECIAL),
    ("exmy", {"exponent_bits": 8, "mantissa_bits": 1, "specials": "ieee"}),
]
STEPS = range(9)
TIES = torch.cat([(1 + 2.0 ** -torch.arange(1, 9)) * 2.0**k for k in range(-3, 1)])
"""Midpoints of some grid or other, and values of others."""
Case = tuple[str, dict[str, Any], Any, bool, bool, Any]
"""Format, its settings, rounding, Kahan compensation, whether steps are skipped, mode of the scale."""
ALL: list[Case] = [
    (name, settings, rounding, kahan, skips, mode)
    for name, settings in GRIDS
    for rounding in ("nearest", "stochastic")
    for kahan in (False, True)
    for skips, mode in ((False, "current"), (True, "current"), (False, "frozen"))
]


def same(a: Tensor, b: Tensor) -> bool:
    """NaN is NaN; zeros are told apart."""
    broken = a.isnan()
    sound = [one.float().masked_fill(broken, 0).view(torch.int32) for one in (a, b)]
    return torch.equal(broken, b.isnan()) and torch.equal(*sound)


def adverse(model: nn.Module, step: int, draw: torch.Generator, device: str) -> None:
    """Gradients that make scales grow and shrink, or are nothing or broken; and writes behind the optimizer."""
    for parameter in model.parameters():
        size = 2.0**step if step < 6 else 1e-2
        grad = torch.randn(parameter.shape, generator=draw) * (0.0 if step == 3 else size)
        if step == 7 and parameter.dim() > 1:
            grad.view(-1)[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
        if step == 6:
            parameter.data.mul_(1e-3).view(-1)[: len(TIES)] = TIES[: parameter.numel()]
            grad.view(-1)[: len(TIES)] = 0.0
        if step == 8:
            parameter.data.nan_to_num_(0, 3e38, -3e38).view(-1)[0] = -0.0
            grad.zero_()
        parameter.grad = grad.to(device)


def trained(
    case: Case, device: str, weights: int = 2, steps: Sequence[int] = STEPS
) -> list[dict[str, Tensor]]:
    """What is stored after each step."""
    fmt, settings, rounding, kahan, skips, mode = case
    model = nn.Sequential(nn.Linear(65, 33), nn.Linear(5, 1, bias=False))[:weights]
    draw = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
    model.to(device)
    options = {"compensation": load_format("bf16")} if kahan else {}
    scaling = ScalingSettings(mode=mode)
    grid = load_format(fmt, **settings)
    quantize_model(model, grid, residency="grid", rounding=rounding, scaling=scaling, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    keep_on_grid(model, optimizer, torch.Generator(device).manual_seed(3))
    geometries = list(weight_geometry(model).values())
    found = []
    for step in steps:
        adverse(model, step, draw, device)
        in_force = {"scales in force": torch.stack(scales_of(geometries))}
        if skips:
            optimizer.found_inf = torch.tensor(float(step % 2), device=device)  # type: ignore[attr-defined]
        optimizer.step()
        stored = {name: value.clone() for name, value in model.state_dict().items()}
        found.append(stored | in_force)
    return found


def agree(
    case: Case, device: str, name: str, weights: int = 2, steps: Sequence[int] = STEPS
) -> None:
    """That Triton's kernels do: see :func:`agrees`."""
    from altgrad_core.quantization.kernels import gpu_settling

    agrees(gpu_settling, case, device, name, "triton", weights, steps)


def agrees(
    kernels: Any,
    case: Case,
    device: str,
    name: str,
    backend_wanted: str,
    weights: int = 2,
    steps: Sequence[int] = STEPS,
) -> None:
    """Both ways to the same bits, and the kernels really used: once a step that is not skipped, with all weights."""
    with (
        mock.patch.object(backend, name, return_value=backend_wanted),
        mock.patch.object(kernels, "settle", wraps=kernels.settle) as settle,
        mock.patch.object(kernels, "scales", wraps=kernels.scales) as scales,
    ):
        ours = trained(case, device, weights, steps)
        looked = backend_wanted == "numba" and case[4]
        launches = [step for step in steps if not (looked and step % 2)]
        assert [len(call.args[0]) for call in settle.call_args_list] == [weights] * len(launches)
        asked = steps if load_format(case[0], **case[1]).scaled else []
        assert [len(call.args[0]) for call in scales.call_args_list] == [weights] * len(asked)
    with mock.patch.object(backend, name, return_value="eager"):
        theirs = trained(case, device, weights, steps)
    for step, a, b in zip(steps, ours, theirs, strict=True):
        for key, value in a.items():
            assert same(value, b[key]), (case, step, key)


@pytest.mark.skipif(backend.cpu_backend() != "numba", reason="no compiled kernels")
@pytest.mark.parametrize("case", ALL, ids=str)
def test_compiled(case: Case) -> None:
    from altgrad_core.quantization.kernels import compiled_settling

    agrees(compiled_settling, case, "cpu", "cpu_backend", "numba")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ALL, ids=str)
def test_on_cuda(case: Case) -> None:
    agree(case, "cuda", "gpu_backend")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kahan", [False, True])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_large_weight_on_cuda(rounding: Any, kahan: bool) -> None:
    """More than one block to each weight, at many scales of value; and nothing waits."""
    found = []
    for name in ("triton", "eager"):
        with mock.patch.object(backend, "gpu_backend", return_value=name):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(1000, 999), nn.Linear(768, 3072)).cuda()
            options = {"compensation": load_format("bf16")} if kahan else {}
            quantize_model(
                model, load_format("e5m2"), residency="grid", rounding=rounding, **options
            )
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
            keep_on_grid(model, optimizer, torch.Generator("cuda").manual_seed(3))
            draw = torch.Generator("cuda").manual_seed(4)
            for step in range(5):
                for parameter in model.parameters():
                    parameter.grad = torch.randn(parameter.shape, device="cuda", generator=draw)
                torch.cuda.set_sync_debug_mode("error" if step else "default")
                optimizer.step()
                torch.cuda.set_sync_debug_mode("default")
            found.append(model.state_dict())
    for key, value in found[0].items():
        assert same(value, found[1][key]), key

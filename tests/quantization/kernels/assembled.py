"""Compile what the kernels for a GPU launch to machine code, without one: ``python assembled.py``.

Launches are those of the product on tensors of the host, which Triton takes for a GPU's; it compiles and runs none.
Prints the names of the kernels, a JSON list.
"""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import torch
import triton
from grids import GRIDS
from interpreted import flips_of_some_steps, manifold_steps
from patterns import format_of
from test_settling_together import Case, trained
from torch import nn
from triton.backends.compiler import GPUTarget

from altgrad_core import load_format
from altgrad_core.interfaces import backend, draws
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.kernels import gpu_epilogue, gpu_layout, gpu_scales, stated
from altgrad_core.quantization.native.codes import place_codes
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model

TARGET = GPUTarget("cuda", 90, 32)


class Nowhere:
    """As much of a driver as compiling asks for."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


made: list[tuple[str, str]] = []
"""Of each launch the kernel's name, and a hash of what was compiled for it."""


def only_compiled(kernel: Any, grid: tuple[int, ...]) -> Any:
    def launch(*given: Any, **options: Any) -> None:
        compiled = kernel.run(*given, grid=grid, warmup=True, **options)
        made.append((kernel.__name__, compiled.hash))

    return launch


def rounding() -> None:
    x, unit = torch.zeros(3000), torch.tensor(2.0)
    large = load_format("exmy", exponent_bits=5, mantissa_bits=6).code_values()
    tables = [GRIDS["thresholds"](), load_format("table", values=large.tolist())]
    ladder = [format_of(*case) for case in (("e5m2", "special"), ("e7m0", "saturate"))]
    for fmt in (*tables, *ladder, load_format("bf16")):
        scale = unit if fmt.scaled else None
        for how in ("nearest", "stochastic"):
            options = {"keep_inf": scale is None}
            fmt.round_scaled(x, scale, torch.bfloat16, how, torch.Generator(), **options)  # type: ignore[arg-type]
    for name in ("e4m3", "e5m2", "e0m7"):
        fmt, settings = load_format(name), ScalingSettings()
        place_codes(x, fmt, unit, getattr(torch, fmt.native), scaling=settings)
    gpu_layout.by_rows(torch.zeros(300, 40, dtype=torch.int8).t())
    for bias in (None, x[:40]):
        sums = torch.zeros(300, 40, dtype=torch.int32)
        gpu_epilogue.epilogue(sums, (unit, unit), bias, torch.bfloat16)
    # 1 is a constant to Triton, which has no methods of tensors
    GRIDS["two"]().round(x[:1], "stochastic", torch.Generator())
    format_of("e6m1", "saturate").round(x[:1])
    gpu_scales.amax(x)
    for _ in range(2):  # a capture must not meet one that is not compiled yet
        gpu_scales.scale(x, 1.5, (1.0, 2.0, 3))
    assert made[-1] == made[-2]
    gpu_scales.scales(x, 1.5, (1.0, 2.0, 3))
    for dtype in (torch.float32, torch.float64):
        draws.keyed_uniform(x.to(dtype), 7)


def settling() -> None:
    cases: list[Case] = [
        ("e5m2", {}, "stochastic", True, True, "current"),
        ("e5m2", {}, "nearest", False, False, "current"),
        ("bf16", {}, "stochastic", True, False, "current"),
    ]
    for case in cases:
        trained(case, "cpu", 1, (0,))
    model = nn.Linear(65, 33)
    quantize_model(model, load_format("e5m2"), residency="grid")
    weight_geometry(model)["weight"].scale()


if __name__ == "__main__":
    triton.runtime.driver.set_active(Nowhere())
    with (
        mock.patch.object(triton.JITFunction, "__getitem__", only_compiled),
        mock.patch.object(backend, "cpu_backend", return_value="triton"),
        mock.patch.object(stated, "_tried", lambda fmt: getattr(fmt, "numbers", None)),
    ):
        rounding()
        settling()
        for normalize in ("rms", "none"):
            manifold_steps({"site": "both", "normalize": normalize}, torch.Generator())
        flips_of_some_steps(torch.Generator())
    print(json.dumps(sorted({name for name, _ in made})))

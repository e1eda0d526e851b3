"""Triton's kernels under its interpreter, against the reference: ``TRITON_INTERPRET=1 python interpreted.py [all]``.

A program of the interpreter takes tens of milliseconds, however large its block, so there are few, and those large.
With ``all``, what takes minutes. Prints what each part found: a JSON object of tracebacks, or null where all agree.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Callable
from itertools import product
from typing import Any
from unittest import mock

import torch
from grids import GRIDS, switches_and_values
from patterns import BF16, CASES, PATTERNS, agree, around_boundaries, format_of, numbers_of
from test_settling_together import ALL, SPECIAL, Case
from test_settling_together import agree as settled_agree
from torch import Tensor, nn

from altgrad_core import load_format
from altgrad_core.interfaces import backend, draws, gpu_draws, gpu_grid
from altgrad_core.quantization import scaling
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.kernels import (
    gpu,
    gpu_epilogue,
    gpu_layout,
    gpu_scales,
    rounding,
    stated,
)
from altgrad_core.quantization.kernels.numbers import GridNumbers
from altgrad_core.quantization.native.codes import _codes
from altgrad_core.quantization.native.products import _integer, laid_out
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.training.clock import StepClock
from altgrad_core.training.view import Run, StepView
from altgrad_plugins.monitors.geometry.flips import FlipsMonitor
from altgrad_plugins.monitors.geometry.settings import FlipsSettings
from altgrad_plugins.optimizers.manifold import ManifoldAdamWPlugin
from altgrad_plugins.optimizers.settings import ManifoldAdamWSettings

EVERYTHING = "all" in sys.argv[1:]
KEY = 2**64 - 5
BLOCKS_ONCE = mock.patch.object(gpu, "_BLOCK", 1 << 16)
"""All of a tensor in one program."""
UNTRIED = mock.patch.object(stated, "_tried", lambda fmt: fmt.numbers)
"""What a trial of a format would find; with the kernels in use it takes half a minute."""


def values_for(numbers: GridNumbers) -> Tensor:
    x = torch.cat([around_boundaries(numbers), PATTERNS[:: 1 if EVERYTHING else 53]])
    return x if EVERYTHING else x[: 1 << 16]


def expected(x: Tensor, numbers: GridNumbers, key: int | None) -> Tensor:
    if key is None:
        return rounding.round_nearest(x, numbers)
    with mock.patch.object(draws, "new_key", return_value=key):
        return rounding.round_stochastic(x, numbers, torch.Generator())


def part_rounding() -> None:
    for name, overflow in CASES + BF16:
        numbers = numbers_of(name, overflow)
        x = values_for(numbers)
        for key in (None, KEY):
            out = torch.empty_like(x)
            gpu.Kernels(numbers).scaled(x, None, out, key)
            assert agree(out, expected(x, numbers, key)), (name, overflow, key)


def part_scaled_rounding() -> None:
    """In float16, since the interpreter has a cast to bfloat16 of its own."""
    sizes = (2.0**-126, 0.25, 3.7, 2.0**100, math.inf, math.nan)
    for name, overflow in CASES if EVERYTHING else [("e5m2", "special"), ("e7m0", "saturate")]:
        fmt, numbers = format_of(name, overflow), numbers_of(name, overflow)
        x = values_for(numbers)
        for size in sizes:
            scale = torch.tensor(size)
            for dtype in (torch.float32, torch.float16)[: 1 + (size == 3.7)]:
                out = torch.empty_like(x, dtype=dtype)
                gpu.Kernels(numbers).scaled(x, scale, out)
                found = fmt.round_scaled(x, scale, dtype)
                assert agree(out.float(), found.float()), (name, size, dtype)
        out = torch.empty_like(x)
        gpu.Kernels(numbers).scaled(x, torch.tensor(3.7), out, KEY)
        assert agree(out, expected(x / 3.7, numbers, KEY) * 3.7), name
    x = torch.linspace(-9, 9, 301)
    found, want = both(fmt.round_scaled, torch._neg_view(x), None, torch.float32, "nearest")
    assert agree(found, want)
    fmt, x = format_of("bf16", "saturate"), values_for(numbers_of("bf16", "saturate"))
    out = torch.empty_like(x)
    gpu.Kernels(numbers_of("bf16", "saturate")).scaled(x, None, out, keep_inf=True)
    assert agree(out, fmt.round_scaled(x, None, torch.float32, keep_inf=True))


def part_codes() -> None:
    """Of native products: float8 and int8, which have no grid value between two of theirs."""
    x = torch.cat([PATTERNS[::1201].nan_to_num(), torch.linspace(-9, 9, 301)])
    for name, step in (("e4m3", 1.0), ("e5m2", 1.0), ("e0m7", 2.0**-7), ("e1m6", 2.0**-5)):
        fmt = format_of(name, "saturate")
        dtype = getattr(torch, fmt.native)
        for how in ("nearest", "stochastic"):
            for size in (None, 0.25, 3.7):
                scale = None if size is None else torch.tensor(size)
                found, want = both(_codes, x, fmt, scale, dtype, how, step=step)
                assert torch.equal(found.view(torch.uint8), want.view(torch.uint8)), (name, size)


def part_layouts() -> None:
    """Of matrices of codes: one tile and several, whole ones and such as are cut off; both operands need it."""
    for dtype in (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2):
        for shape in ((5, 33), (128, 256), (200, 130), (129, 3)):
            x = torch.arange(shape[0] * shape[1]).to(torch.uint8).view(dtype).reshape(shape)
            with (
                mock.patch.object(backend, "cpu_backend", return_value="triton"),
                mock.patch.object(gpu_layout, "by_rows", wraps=gpu_layout.by_rows) as turned,
            ):
                rows, columns = laid_out(x.t(), x, padded=False)
            assert turned.call_count == 2
            for found, want in ((rows, x.t()), (columns.t(), x.t())):
                assert found.is_contiguous(), shape
                assert torch.equal(found.view(torch.uint8), want.contiguous().view(torch.uint8))


def part_epilogues() -> None:
    """Of sums that float32 holds and that it does not, one block and several; scales that are broken."""
    draw = torch.Generator().manual_seed(0)
    for (m, n), dtype, bias_dtype, (one, other) in product(
        ((3, 5), (70, 60), (1, 2049)),
        (torch.float32, torch.bfloat16, torch.float16),
        (None, torch.float32, torch.bfloat16),
        ((0.03, 0.07), (2.0**-126, 0.5), (math.inf, 1.0), (math.nan, 1.0)),
    ):
        sums = torch.randint(-(2**31), 2**31, (m, n), generator=draw).int() >> 8 * (m % 4)
        sums[0, 0] = 0
        bias = None if bias_dtype is None else torch.randn(n, generator=draw).to(bias_dtype)
        scales = torch.tensor(one), torch.tensor(other)
        given = sums, sums, *scales, bias, dtype
        with (
            mock.patch.object(torch, "_int_mm", return_value=sums),
            mock.patch.object(gpu_epilogue, "epilogue", wraps=gpu_epilogue.epilogue) as kernel,
        ):
            found, want = both(lambda draw, given=given: _integer(*given).to(given[-1]))
            wide = _integer(*given[:-1], torch.float32)
        assert kernel.call_count == 1
        assert found.dtype == want.dtype
        if (
            dtype == torch.bfloat16
        ):  # to which the interpreter, and it alone, does not round but cuts off
            want = wide.view(torch.int32).bitwise_and(-(1 << 16)).view(torch.float32)
        assert agree(found.float(), want.float()), (m, n, dtype, bias_dtype, one, other)

    odd = torch.randn(2, 5, generator=draw)
    for bias, scales in (
        (odd[:, 0], (torch.tensor(0.03), torch.tensor(0.07))),
        (torch._neg_view(odd[0]), (torch.tensor(0.03), torch.tensor(0.07))),
        (None, (torch.tensor([0.03]), torch.tensor(0.07))),
        (None, (torch.tensor(0.03, dtype=torch.float64), torch.tensor(0.07))),
        (odd[0].double(), (torch.tensor(0.03), torch.tensor(0.07))),
    ):
        assert not gpu_epilogue.fits(scales, bias, torch.float32)
    assert not gpu_epilogue.fits((torch.tensor(0.03), torch.tensor(0.07)), None, torch.float64)


def both(call: Callable[..., Tensor], *args: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """What ``call`` gives by the kernels and by torch's operators, with the same draws."""
    found = []
    for name in ("triton", "eager"):
        with mock.patch.object(backend, "cpu_backend", return_value=name):
            found.append(call(*args, torch.Generator().manual_seed(7), **options))
    return found[0], found[1]


def part_tables() -> None:
    """Every kind of grid, and two that are finer: one of them too large for shared memory."""
    large = load_format("exmy", exponent_bits=5, mantissa_bits=6).code_values()
    finer = [[0.0, *(1 + torch.arange(1023) / 1024).tolist()], large.tolist()]
    made = [make() for make in GRIDS.values()]
    for fmt in [*made, *(load_format("table", values=values) for values in finer)]:
        around = switches_and_values(fmt)
        x = torch.cat([around, PATTERNS[:: 1 if EVERYTHING else 53]])
        x = x if EVERYTHING else x[: 1 << 16]
        for how in ("nearest", "stochastic"):
            found, want = both(fmt.round, x, how)
            assert agree(found, want), (fmt, how)


def part_tables_of_other_inputs() -> None:
    fmt, x = GRIDS["thresholds"](), torch.linspace(-9, 9, 60).view(6, 10)
    for some in (x.t(), torch._neg_view(x), x[:0], x[0, 0], x.half(), x.double()):
        for found, want in (
            both(fmt.round, some, "nearest"),
            both(fmt.round_into, torch.empty_like(some), some, "nearest"),
        ):
            assert (found.dtype, found.shape) == (want.dtype, want.shape)
            assert torch.equal(found, want)


def part_tables_at_scales() -> None:
    fmt, x = GRIDS["posit8"](), torch.cat([PATTERNS[::1201], torch.linspace(-9, 9, 301)])
    for size in (None, 2.0**-126, 0.25, 3.7, math.inf, math.nan):
        scale = None if size is None else torch.tensor(size)
        for how in ("nearest", "stochastic"):
            for given in (x, torch._neg_view(x), x.half())[: 3 if size == 3.7 else 1]:
                where = given, scale, torch.float32, how
                found, want = both(fmt.round_scaled, *where, keep_inf=size is None)
                assert agree(found, want), (size, how)


def part_several_blocks() -> None:
    numbers, x = numbers_of("e3m4", "saturate"), PATTERNS[::191][:2051].contiguous()
    table = GRIDS["e5m2"]()
    for how in ("nearest", "stochastic"):
        found, want = both(table.round, x, how)
        assert agree(found, want), how
    for key in (None, KEY):
        out = torch.empty_like(x)
        gpu.Kernels(numbers).scaled(x, None, out, key)
        assert agree(out, expected(x, numbers, key)), key


def part_scales() -> None:
    finite = PATTERNS[PATTERNS.isfinite()]
    some = (PATTERNS[:: 1 if EVERYTHING else 97], finite[:4097], torch.zeros(5), -torch.ones(2) / 0)
    for x in (one.contiguous() for one in some):
        assert agree(gpu_scales.amax(x), x.abs().amax())
    powers = torch.exp2(torch.arange(-149, 128, 1 if EVERYTHING else 7).double()).float()
    ends = torch.tensor([0.0, math.inf, math.nan, 3.4028234663852886e38])
    sides = [torch.nextafter(powers, end) for end in (ends[1], ends[0])]
    amax = torch.cat([powers, *sides, ends])
    for name in ("e0m7", "e3m4", "e5m2", "e7m0"):
        fmt = format_of(name, "saturate")
        for room in (1.0, 1.5, 1024.0) if EVERYTHING or name == "e5m2" else (1.5,):
            found = gpu_scales.scales(amax, room, scaling.power_of_two_limits(fmt.max_finite))
            assert agree(found, scaling.roomy_scale(amax, fmt, room, power_of_two=True)), name
            for x in (one.contiguous() for one in (*some, *amax[:: len(amax) // 9].unsqueeze(1))):
                asked = x, room, scaling.power_of_two_limits(fmt.max_finite)
                want = scaling.roomy_scale(x.abs().amax(), fmt, room, power_of_two=True)
                assert agree(gpu_scales.scale(*asked), want), name
    assert not any(
        next(ring).any() for ring in gpu_scales._rings.values() for _ in range(gpu_scales._CELLS)
    )


def part_draws() -> None:
    for dtype, counts in ((torch.float32, (3, 2050)), (torch.float64, (1, 1023))):
        for count in counts:
            ours = torch.empty(count, dtype=dtype)
            gpu_draws.fill(ours, KEY)
            assert torch.equal(ours, draws.keyed_uniform(ours, KEY)), (dtype, count)


def part_settling() -> None:
    """Every way through the kernels: rounding, compensation, skipped steps, fixed scales, no mantissa."""
    few: list[tuple[Case, int, tuple[int, ...]]] = [
        (("e5m2", {}, "stochastic", True, True, "current"), 2, (0, 1, 4, 6, 7, 8)),
        (("e7m0", {}, "nearest", False, False, "current"), 1, (0, 3, 5, 6, 7, 8)),
        (("e4m3", SPECIAL, "stochastic", False, False, "frozen"), 1, (0, 7, 8)),
        (("bf16", {}, "stochastic", True, False, "current"), 1, (0, 5, 7, 8)),
        (("bf16", {}, "nearest", False, True, "current"), 2, (0, 1, 8)),
    ]
    with UNTRIED:
        for case, *size in few:
            settled_agree(case, "cpu", "cpu_backend", *size)
        for case in ALL if EVERYTHING else []:
            settled_agree(case, "cpu", "cpu_backend")


def part_manifold() -> None:
    """As the operators take the step. Not its root mean square, a loop that the interpreter cannot take."""
    for settings in ({"site": site, "normalize": "none"} for site in ("pre", "both")):
        found, want = both(manifold_steps, settings)
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-7)


def manifold_steps(settings: dict[str, Any], generator: torch.Generator) -> Tensor:
    """The weights after two steps, one behind the other."""
    model = nn.Sequential(nn.Linear(65, 33, bias=False), nn.Linear(5, 1, bias=False))
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    quantize_model(model, format_of("e5m2", "saturate"))
    optimizer = ManifoldAdamWPlugin(ManifoldAdamWSettings(**settings)).build(
        [{"params": list(model.parameters())}],
        {g.parameter: g for g in weight_geometry(model).values()},
        learning_rate=1e-2,
        generator=torch.Generator(),
    )
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def part_flips() -> None:
    """Masters and residents: flips, stalls, a scale that changes, a weight that breaks, a format without numbers."""
    with UNTRIED:
        found, want = both(lambda generator: torch.stack(flips_of_some_steps(generator)))
    assert agree(found, want)
    assert 0 < int(found.isnan().sum()) < found.numel() / 2


def flips_of_some_steps(generator: torch.Generator) -> list[Tensor]:
    found = []
    for residency in ("master", "grid"):
        names = ("e5m2", "e7m0", "bf16")
        model = nn.Sequential(nn.Linear(65, 33), nn.Linear(5, 1), nn.Linear(3, 2))
        for layer, name in zip(model, names, strict=True):
            quantize_model(layer, load_format(name), residency=residency)
        for parameter in model.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        kept = GridResidency(model, generator)
        kept.attach(optimizer)
        weights, clock = weight_geometry(model), StepClock(torch.device("cpu"))
        run = Run(model, optimizer, weights, torch.device("cpu"), 9, clock, residency=kept)
        monitor = FlipsMonitor(FlipsSettings(interval=1))
        monitor.start(run)
        for step in range(2):
            for name, parameter in model.named_parameters():
                size = 100.0 if step and name == "0.weight" else 0.3
                parameter.grad = torch.randn(parameter.shape, generator=generator) * size
            if step:
                model[1].weight.grad[0, 0] = math.inf
            view = StepView(run, torch.zeros(()))
            monitor.before_update(view)
            optimizer.step()
            view.mark_updated()
            metrics = monitor.after_update(view).metrics
            found += [torch.as_tensor(metrics[name]).float() for name in sorted(metrics)]
    return found


def outcome(name: str) -> str | None:
    try:
        globals()[f"part_{name}"]()
    except Exception:
        return traceback.format_exc()
    return None


AT_ONCE = ("rounding", "scaled_rounding", "codes", "layouts", "tables", "tables_at_scales")
IN_BLOCKS = (
    *(
        "epilogues",
        "several_blocks",
        "tables_of_other_inputs",
        "scales",
        "draws",
        "settling",
        "manifold",
        "flips",
    ),
)

if __name__ == "__main__":
    assert gpu.triton.knobs.runtime.interpret
    with BLOCKS_ONCE, mock.patch.object(gpu_grid, "_BLOCK", 1 << 16):
        found = {name: outcome(name) for name in AT_ONCE}
    found |= {name: outcome(name) for name in IN_BLOCKS}
    print(json.dumps(found))

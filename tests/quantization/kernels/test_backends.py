"""Compiled rounding, bit for bit the reference's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from altgrad_core import load_format
from altgrad_core.errors import UserError
from altgrad_core.interfaces import backend
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels import backends, compiled, rounding
from altgrad_core.quantization.kernels.numbers import GridNumbers
from altgrad_core.quantization.scaling import largest_magnitude, roomy_scale, scale_for

LADDER = ("e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0")


def every_upper_half() -> Tensor:
    """All 2^16 patterns of a float32's upper half, and 1 ulp around them and around their midpoints."""
    upper = torch.arange(2**16, dtype=torch.int64) << 16
    bits = torch.cat([upper + offset for offset in (0, 1, -1, 2**15, 2**15 + 1, 2**15 - 1)])
    return torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(torch.float32)


PATTERNS = every_upper_half()


def around_boundaries(numbers: GridNumbers) -> Tensor:
    """Grid values and midpoints of the whole ladder, and the float32 on each side of them."""
    tops = rounding.rungs(torch.tensor([torch.inf]), numbers)
    count = min(int(tops), 2**12)
    values = rounding.values(torch.arange(count + 1), numbers).double()
    exact = torch.cat([values, (values[1:] + values[:-1]) / 2]).float()
    up, down = (torch.nextafter(exact, torch.tensor(end)) for end in (torch.inf, -torch.inf))
    sides = torch.cat([exact, up, down])
    return torch.cat([sides, -sides])


def agree(found: Tensor, expected: Tensor) -> bool:
    """Equal to the last bit; any NaN is a NaN."""
    same = found.view(torch.int32) == expected.view(torch.int32)
    return bool((same | (found.isnan() & expected.isnan())).all())


def format_of(name: str, overflow: str) -> Format:
    settings = {"overflow": overflow} if name in ("e4m3", "e5m2", "bf16") else {}
    return load_format(name, **settings)


def numbers_of(name: str, overflow: str) -> GridNumbers:
    found: GridNumbers = format_of(name, overflow).numbers  # type: ignore[attr-defined]
    return found


CASES = [(name, "saturate") for name in LADDER] + [("e4m3", "special"), ("e5m2", "special")]
BF16 = [("bf16", "saturate"), ("bf16", "special")]


@pytest.mark.parametrize(("name", "overflow"), CASES)
def test_every_pattern_of_the_ladder(name: str, overflow: str) -> None:
    numbers = numbers_of(name, overflow)
    assert numbers.fits_float32
    x = torch.cat([PATTERNS, around_boundaries(numbers)])
    out = torch.empty_like(x)
    compiled.Kernels(numbers).nearest(x, out)
    assert agree(out, rounding.round_nearest(x, numbers))


@pytest.mark.parametrize("mantissa", [1, 7, 10, 22])
@pytest.mark.parametrize("overflow", [None, float("inf"), float("nan")])
def test_grids_that_are_float32_with_fewer_bits(mantissa: int, overflow: float | None) -> None:
    largest = 2.0**127 * (2 - 2.0**-mantissa)
    numbers = GridNumbers(mantissa, -126, largest, overflow)
    assert numbers.is_float32_prefix
    draws = torch.Generator().manual_seed(0)
    some = torch.randint(-(2**31), 2**31, (30_000,), generator=draws, dtype=torch.int64)
    x = torch.cat([PATTERNS, some.to(torch.int32).view(torch.float32)])
    out = torch.empty_like(x)
    compiled.Kernels(numbers).nearest(x, out)
    assert agree(out, rounding.round_nearest(x, numbers))


@pytest.mark.parametrize(("name", "overflow"), CASES + BF16)
def test_every_pattern_of_the_ladder_stochastically(
    name: str, overflow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = numbers_of(name, overflow)
    x = torch.cat([PATTERNS, around_boundaries(numbers)])[:-3]  # no whole number of blocks

    def rounded() -> Tensor:
        return backends.round_stochastic(x, numbers, torch.Generator().manual_seed(3))

    fast = rounded()
    monkeypatch.setattr(backend, "cpu_backend", lambda: "eager")
    assert agree(fast, rounded())


@st.composite
def grids(draw: st.DrawFn) -> GridNumbers:
    m = draw(st.integers(0, 12))
    e_min = draw(st.integers(-126, 60))
    binade = draw(st.integers(0, 40))
    multiple = draw(st.integers(1 if binade == 0 else 2**m, 2 ** (m + 1) - 1))
    overflow = draw(st.sampled_from([None, float("inf"), float("nan")]))
    return GridNumbers(m, e_min, float(multiple) * 2.0 ** (e_min + binade - m), overflow)


@settings(max_examples=150, deadline=None)
@given(numbers=grids())
def test_any_grid(numbers: GridNumbers) -> None:
    if not numbers.fits_float32:
        return
    x = torch.cat([PATTERNS[::97], around_boundaries(numbers)])
    out = torch.empty_like(x)
    compiled.Kernels(numbers).nearest(x, out)
    assert agree(out, rounding.round_nearest(x, numbers))


@pytest.mark.parametrize("rounding_mode", ["nearest", "stochastic"])
@pytest.mark.parametrize("name", ["e0m7", "e5m2", "bf16"])
def test_layout_and_width_of_the_input_do_not_matter(
    name: str, rounding_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fmt = load_format(name)
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    for given_x in (x, x.T, x[::2, 1:], x[:0], x[0, 0], x.bfloat16(), x.double(), x.T.bfloat16()):

        def rounded(given_x: Tensor = given_x) -> Tensor:
            return fmt.round(given_x, rounding_mode, torch.Generator().manual_seed(1))  # type: ignore[arg-type]

        with monkeypatch.context() as patched:
            fast = rounded()
            patched.setattr(backend, "cpu_backend", lambda: "eager")
            slow = rounded()
        assert (fast.dtype, fast.shape) == (given_x.dtype, given_x.shape)
        assert torch.equal(fast, slow)


def test_transforms_see_what_the_reference_does() -> None:
    fmt, x = load_format("e4m3"), torch.randn(4, 6)
    assert torch.equal(torch.func.vmap(fmt.round)(x), fmt.round(x))


@pytest.mark.parametrize(
    ("wanted", "found"), [("eager", "eager"), ("auto", "numba"), ("", "numba")]
)
def test_the_backend_can_be_forced(
    wanted: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTGRAD_KERNELS", wanted)
    assert backend.cpu_backend.__wrapped__() == found
    if wanted == "eager":
        assert backend.gpu_backend.__wrapped__() == "eager"


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTGRAD_KERNELS", "cuda")
    with pytest.raises(UserError, match="ALTGRAD_KERNELS is 'auto' or 'eager', not 'cuda'"):
        backend.cpu_backend.__wrapped__()


INTERPRETED = """
import math
import torch
from altgrad_core import load_format
from altgrad_core.interfaces import compiled_draws, gpu_draws
from altgrad_core.quantization import scaling
from altgrad_core.quantization.kernels import compiled, gpu, gpu_scales
from test_backends import BF16, CASES, PATTERNS, agree, around_boundaries, format_of
for name, overflow in CASES + BF16:
    fmt = format_of(name, overflow)
    numbers = fmt.numbers
    x = torch.cat([PATTERNS[::211], around_boundaries(numbers)[::3], PATTERNS[-1:]])
    ours, theirs = torch.empty_like(x), torch.empty_like(x)
    for call in ("nearest", "stochastic"):
        for kernels, out in ((gpu, ours), (compiled, theirs)):
            key = () if call == "nearest" else (2**64 - 5,)
            getattr(kernels.Kernels(numbers), call)(x, out, *key)
        assert agree(ours, theirs), (name, overflow, call)
    for size in (None,) if name == "bf16" else (2.0**-126, 0.25, 3.7, 2.0**100, math.inf, math.nan):
        scale = None if size is None else torch.tensor(size)
        for dtype in (torch.float32, torch.float16):  # the interpreter has a cast to bfloat16 of its own
            out = torch.empty_like(x, dtype=dtype)
            gpu.Kernels(numbers).scaled(x, scale, out, keep_inf=size is None)
            expected = fmt.round_scaled(x, scale, dtype, keep_inf=size is None)
            assert agree(out.float(), expected.float()), (name, size, dtype)
for x in (PATTERNS, PATTERNS[PATTERNS.isfinite()], torch.zeros(5), torch.tensor([1.0, -math.inf])):
    assert agree(gpu_scales.amax(x), x.abs().amax())
for name in ("e0m7", "e3m4", "e5m2", "e7m0"):
    fmt, amax = format_of(name, "saturate"), PATTERNS[::41].abs()
    for room in (1.0, 1.5, 1024.0):
        found = gpu_scales.scales(amax, room, scaling.power_of_two_limits(fmt.max_finite))
        assert agree(found, scaling.roomy_scale(amax, fmt, room, power_of_two=True)), (name, room)
for dtype in (torch.float32, torch.float64):
    for count in (1, 2, 3, 1023, 2050):
        ours, theirs = torch.empty(count, dtype=dtype), torch.empty(count, dtype=dtype)
        gpu_draws.fill(ours, 2**64 - 5)
        compiled_draws.fill(theirs, 2**64 - 5)
        assert torch.equal(ours, theirs), (dtype, count)
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install triton")
def test_triton_computes_the_same_under_its_interpreter() -> None:
    surroundings = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-c", INTERPRETED]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("name", "overflow"), CASES)
def test_the_gpu_gives_the_cpus_bits(name: str, overflow: str, stochastic: bool) -> None:
    numbers = numbers_of(name, overflow)
    x = torch.cat([PATTERNS, around_boundaries(numbers)])

    def rounded(x: Tensor) -> Tensor:
        if not stochastic:
            return backends.round_nearest(x, numbers)
        return backends.round_stochastic(x, numbers, torch.Generator().manual_seed(3))

    assert agree(rounded(x.cuda()).cpu(), rounded(x))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "overflow"), CASES + BF16)
def test_scaled_on_the_gpu_as_on_the_cpu(name: str, overflow: str, dtype: torch.dtype) -> None:
    fmt = format_of(name, overflow)
    x = torch.cat([PATTERNS, around_boundaries(fmt.numbers)])  # type: ignore[attr-defined]
    for size in (2.0**-126, 0.25, 3.7, 2.0**100, float("inf"), float("nan")):
        scale = torch.tensor(size) if fmt.scaled else None
        for given_x in (x, x.bfloat16(), x.half()):
            there = None if scale is None else scale.cuda()
            found = fmt.round_scaled(given_x.cuda(), there, dtype).cpu()
            assert agree(found.float(), fmt.round_scaled(given_x, scale, dtype).float())
    for some in (x, x[x.isfinite()], x[x.abs() < 1e-3], torch.zeros(7), x[:0]):
        for amax in (largest_magnitude(some), largest_magnitude(some.bfloat16()).float()):
            assert agree(scale_of(fmt, amax.cuda()).cpu(), scale_of(fmt, amax))
        assert agree(largest_magnitude(some.cuda()).cpu(), largest_magnitude(some))


def scale_of(fmt: Format, amax: Tensor) -> Tensor:
    return roomy_scale(amax, fmt, fmt.headroom, power_of_two=True)


def fake_quantized(x: Tensor) -> Tensor:
    fmt = load_format("e3m4")
    scale = scale_for(largest_magnitude(x), fmt, power_of_two=True)
    return fmt.round(x / scale) * scale


@pytest.mark.parametrize("function", [largest_magnitude, fake_quantized])
def test_what_is_recorded_repeats_no_number(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(make_fx(function)(x)(100.3 * x), function(100.3 * x))


@pytest.mark.filterwarnings("ignore")
def test_a_trace_repeats_no_number() -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    traced = torch.jit.trace(largest_magnitude, x, check_trace=False)  # type: ignore[no-untyped-call]
    assert torch.equal(traced(100.3 * x), largest_magnitude(100.3 * x))

"""Compiled rounding, bit for bit the reference's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patterns import BF16, CASES, PATTERNS, agree, around_boundaries, format_of, numbers_of
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from altgrad_core import load_format
from altgrad_core.errors import UserError
from altgrad_core.interfaces import backend
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.kernels import backends, compiled, rounding
from altgrad_core.quantization.kernels.numbers import GridNumbers
from altgrad_core.quantization.scaling import largest_magnitude, roomy_scale, scale_for


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

"""Compiled rounding, bit for bit the reference's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from altgrad_core import load_format
from altgrad_core.interfaces import backend
from altgrad_core.quantization.kernels import backends, compiled, rounding
from altgrad_core.quantization.kernels.numbers import GridNumbers

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


def numbers_of(name: str, overflow: str) -> GridNumbers:
    settings = {"overflow": overflow} if name in ("e4m3", "e5m2") else {}
    found: GridNumbers = load_format(name, **settings).numbers  # type: ignore[attr-defined]
    return found


CASES = [(name, "saturate") for name in LADDER] + [("e4m3", "special"), ("e5m2", "special")]


@pytest.mark.parametrize(("name", "overflow"), CASES)
def test_every_pattern_of_the_ladder(name: str, overflow: str) -> None:
    numbers = numbers_of(name, overflow)
    kernels = compiled.kernels(numbers)
    assert kernels is not None
    x = torch.cat([PATTERNS, around_boundaries(numbers)])
    out = torch.empty_like(x)
    kernels.nearest(x.numpy(), out.numpy())
    assert agree(out, rounding.round_nearest(x, numbers))


@pytest.mark.parametrize(("name", "overflow"), CASES)
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
    kernels = compiled.kernels(numbers)
    if kernels is None:
        return
    x = torch.cat([PATTERNS[::97], around_boundaries(numbers)])
    out = torch.empty_like(x)
    kernels.nearest(x.numpy(), out.numpy())
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


def test_transforms_and_compilers_see_what_the_reference_does() -> None:
    fmt, x = load_format("e4m3"), torch.randn(4, 6)
    expected = fmt.round(x)
    assert torch.equal(torch.func.vmap(fmt.round)(x), expected)
    compiled_round = torch.compile(fmt.round, backend="eager", fullgraph=True)
    assert torch.equal(compiled_round(x), expected)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("eager", "eager"), ("numba", "numba"), ("", "numba"), ("cuda", "'auto', 'numba' or 'eager'")],
)
def test_the_backend_can_be_forced(wanted: str, said: str) -> None:
    code = "from altgrad_core.interfaces.backend import cpu_backend as b\nprint(b())"
    surroundings = {**os.environ, "ALTGRAD_KERNELS": wanted}
    done = subprocess.run(
        [sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=False
    )
    assert said in done.stdout + done.stderr

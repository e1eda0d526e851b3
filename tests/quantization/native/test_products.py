"""Native products against float64: float8 within what sums in float32 cost, int8 exactly."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product as pairs
from unittest import mock

import pytest
import torch
from torch import Tensor

from altgrad_core.errors import UserError
from altgrad_core.interfaces import backend
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.native import products
from altgrad_core.quantization.native.codes import CODES, Codes, place_codes, simulated
from altgrad_core.quantization.native.pairs import INTEGER, PRODUCTS, SCALED
from altgrad_core.quantization.native.products import check_products, laid_out, product
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.registry.build import load_format

E4M3, E5M2, INT8 = (load_format(name) for name in ("e4m3", "e5m2", "e0m7"))
FLOAT8 = [(E4M3, E4M3), (E4M3, E5M2), (E5M2, E4M3)]
UNIFORM = [(INT8, INT8), (INT8, load_format("e1m6"))]
SHAPES = [(1, 1, 1), (5, 33, 7), (64, 256, 48)]

CPU = 2.0**-23
"""Share of ``Σ |a·b|`` that a sum in float32 on the CPU may be off by, for each term: an addition rounds once."""
CUDA = 2.0**-8
"""The same on a GPU, for the whole sum: tensor cores are said to line 32 products up with the largest of them, and to
keep 13 bits below it, before a sum in float32 takes the result. Held on an H200."""

cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=cuda)]


def codes_of(x: Tensor, fmt: Format, scale: float = 1.0) -> Codes:
    """``x`` on the grid at that scale, as a native product takes it."""
    rounded = place_codes(
        x,
        fmt,
        torch.tensor(scale, device=x.device),
        getattr(torch, fmt.native),
        scaling=ScalingSettings(),
    )
    return Codes(rounded.values, rounded.epilogue)


def operands(shape: tuple[int, int, int], a: Format, b: Format) -> Iterator[tuple[Tensor, Tensor]]:
    """Grid values: random ones, the whole grid, the largest, and such as cancel but for the smallest."""
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    yield tuple(  # type: ignore[misc]
        fmt.round(torch.randn(size, generator=generator) * fmt.max_finite / 4)
        for fmt, size in ((a, (m, k)), (b, (k, n)))
    )
    grids = [f.code_values()[f.code_values().isfinite()] for f in (a, b)]
    yield tuple(  # type: ignore[misc]
        grid[torch.randint(len(grid), size, generator=generator)]
        for grid, size in zip(grids, ((m, k), (k, n)), strict=True)
    )
    yield torch.full((m, k), a.max_finite), torch.full((k, n), b.max_finite)
    left = torch.full((m, k), a.max_finite)
    left[:, 1::2] *= -1
    left[:, -1] = a.min_positive
    yield left, torch.full((k, n), b.max_finite)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("a", "b"), FLOAT8, ids=lambda f: f.name)
def test_float8_is_within_its_bound(
    device: str, shape: tuple[int, int, int], a: Format, b: Format
) -> None:
    for x, y in operands(shape, a, b):
        found = product(codes_of(x.to(device), a), codes_of(y.to(device), b), torch.float32).cpu()
        exact = x.double() @ y.double()
        size = x.double().abs() @ y.double().abs()
        bound = (CPU * shape[1] if device == "cpu" else CUDA) * size
        assert found.dtype == torch.float32
        assert ((found.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("a", "b"), UNIFORM, ids=lambda f: f.name)
def test_int8_is_exact(device: str, shape: tuple[int, int, int], a: Format, b: Format) -> None:
    for x, y in operands(shape, a, b):
        found = product(codes_of(x.to(device), a), codes_of(y.to(device), b), torch.float32)
        assert torch.equal(found.cpu().double(), x.double() @ y.double())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [None, torch.float32, torch.bfloat16])
def test_what_follows_an_int8_product_on_cuda_has_the_bits_of_the_operators(
    dtype: torch.dtype, bias: torch.dtype | None
) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(70, 2048, device="cuda"), torch.randn(2048, 50, device="cuda")
    more = None if bias is None else torch.randn(50, device="cuda").to(bias)
    found = []
    for name in ("triton", "eager"):
        with mock.patch.object(backend, "gpu_backend", return_value=name):
            codes = codes_of(x, INT8, 0.03), codes_of(y, INT8, 0.07)
            found.append(product(*codes, dtype, more))
    assert torch.equal(*found)


def test_a_sum_in_float32_would_not_be_exact_where_int8_is() -> None:
    """Beyond 2^24 steps: the sum is exact, and the result is rounded once, to its dtype."""
    a, b = torch.full((1, 2**11), 127 / 128), torch.full((2**11, 1), 127 / 128)
    b[-1] = 1 / 128
    exact = (a.double() @ b.double()).item()
    assert exact * 2**14 > 2**24
    found = product(codes_of(a, INT8), codes_of(b, INT8), torch.float32)
    assert found.item() == torch.tensor(exact).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("a", "b"), [*FLOAT8, *UNIFORM], ids=lambda f: f.name)
def test_scales_bias_and_dtype(a: Format, b: Format, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, y, bias = torch.randn(6, 32), torch.randn(32, 5), torch.randn(5)
    left, right = codes_of(x, a, 0.03), codes_of(y, b, 2.0**-5)
    found = product(left, right, dtype, bias)
    values = [simulated(one, torch.float64).values for one in (left, right)]
    exact = values[0] @ values[1] + bias.double()
    assert found.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), exact, rtol=4 * eps, atol=max(8 * eps, 1e-5))


@pytest.mark.parametrize(("a", "b"), [*FLOAT8, *UNIFORM], ids=lambda f: f.name)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 33, 7), (17, 8, 16), (48, 32, 16)])
def test_sizes_that_hardware_does_not_take_are_padded_with_zeros(
    a: Format, b: Format, shape: tuple[int, int, int]
) -> None:
    x, y = next(operands(shape, a, b))
    left, right = codes_of(x, a), codes_of(y, b)
    rows, columns = laid_out(left.values, right.values, padded=True)
    assert all(size % 16 == 0 for size in (*rows.shape, *columns.shape))
    assert rows.shape[0] > 16
    assert rows.is_contiguous()
    assert columns.t().is_contiguous()
    padded = product(Codes(rows, left.epilogue), Codes(columns, right.epilogue), torch.float32)
    assert not padded[shape[0] :].any()
    assert not padded[:, shape[2] :].any()
    plain = product(left, right, torch.float32)
    torch.testing.assert_close(padded[: shape[0], : shape[2]], plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 4, 3), (4, 0, 3), (4, 3, 0)])
@pytest.mark.parametrize("fmt", [E4M3, INT8], ids=lambda f: f.name)
def test_nothing_to_multiply(fmt: Format, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    left, right = codes_of(torch.ones(m, k), fmt), codes_of(torch.ones(k, n), fmt)
    bias = torch.arange(n).float()
    assert torch.equal(product(left, right, torch.float32, bias), bias.expand(m, n))


@pytest.mark.parametrize("name", ["e0m7", "e1m6", "e4m3", "e5m2"])
@pytest.mark.parametrize("scale", [1.0, 0.3, 2.0**-120])
def test_codes_are_what_the_simulation_multiplies(name: str, scale: float) -> None:
    """Also where scaled values would be subnormal, or a scale is no power of two."""
    fmt, factor = load_format(name), torch.tensor(scale)
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * scale * fmt.max_finite / 3
    for rounding in ("nearest", "stochastic"):
        options = {"scaling": ScalingSettings(), "rounding": rounding}
        seeds = [torch.Generator().manual_seed(1) for _ in range(2)]
        dtype = getattr(torch, fmt.native)
        found = place_codes(x, fmt, factor, dtype, generator=seeds[0], **options)
        grid = fmt.round(x / factor, rounding, seeds[1])
        step = fmt.min_positive if name in ("e0m7", "e1m6") else 1.0
        assert torch.equal(found.values.float() * step, grid)
        assert found.epilogue == factor * step
        assert found.scale == factor


@pytest.mark.parametrize("scale", [2.0**-126, 1.7 * 2.0**-126])
def test_codes_of_the_smallest_scale_are_simulated_in_16_bits(scale: float) -> None:
    """Times the step of an integer grid it is subnormal, and has no power of two as a normal float has it."""
    x = torch.randn(100, generator=torch.Generator().manual_seed(0)) * scale / 3
    values, epilogue = simulated(codes_of(x, INT8, scale), torch.bfloat16)
    assert epilogue is not None
    expected = INT8.round(x.double() / scale) * scale
    assert torch.allclose(values.double() * epilogue.double(), expected, rtol=2**-16, atol=0)


@pytest.mark.parametrize("name", ["e0m7", "e4m3", "e5m2"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("keep_inf", [True, False])
def test_what_is_not_finite_shows_in_every_product(
    name: str, broken: float, keep_inf: bool
) -> None:
    """int8 has no NaN and e4m3 no inf: the scale tells. That of a resident weight does not know of them."""
    fmt = load_format(name)
    x = torch.ones(4, 4)
    x[1, 2] = broken
    scale = torch.tensor(1.0) if keep_inf else x.abs().amax() + 1
    rounded = place_codes(
        x, fmt, scale, getattr(torch, fmt.native), scaling=ScalingSettings(), keep_inf=keep_inf
    )
    other = codes_of(torch.ones(4, 4), INT8 if name == "e0m7" else E4M3)
    found = product(Codes(rounded.values, rounded.epilogue), other, torch.float32)
    assert not found[1].isfinite().any()


def test_every_product_that_is_declared_is_tried() -> None:
    """On the CPU; every pair of dtypes of codes is either declared, or of two kinds, or e5m2 × e5m2."""
    for name in (SCALED, INTEGER):
        assert products.unavailable(name, "cpu") == ""
    dtypes = [str(one).removeprefix("torch.") for one in CODES]
    without = [pair for pair in pairs(dtypes, dtypes) if pair not in PRODUCTS]
    assert ("float8_e5m2", "float8_e5m2") in without
    assert all(pair[0] == pair[1] == "float8_e5m2" or "int8" in pair for pair in without)


@pytest.fixture
def _asked_anew() -> Iterator[None]:
    products.unavailable.cache_clear()
    yield
    products.unavailable.cache_clear()


@pytest.mark.usefixtures("_asked_anew")
def test_a_gpu_without_the_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A GPU")
    said = (
        r"execution: native multiplies with torch._scaled_mm, and A GPU has compute capability 8.0, where that "
        "needs 8.9. Use execution: simulated"
    )
    with pytest.raises(UserError, match=said):
        check_products(torch.device("cuda", 0), {SCALED})
    check_products(torch.device("cuda", 0), {INTEGER})
    with pytest.raises(UserError, match="there is none on a device of type mps"):
        check_products(torch.device("mps"), {INTEGER})


@pytest.mark.usefixtures("_asked_anew")
def test_a_torch_without_the_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: object, **kwargs: object) -> Tensor:
        raise NotImplementedError("no such operator\nwith a long text")

    monkeypatch.setattr(torch, "_int_mm", absent)
    with pytest.raises(UserError, match=r"does not have it on the CPU \(no such operator\)\. Use"):
        check_products(torch.device("cpu"), {INTEGER})

"""The formats against gfloat, ml_dtypes and torch's own casts, where they have the type."""

from __future__ import annotations

import gfloat
import ml_dtypes
import numpy as np
import pytest
import torch
from gfloat import Domain, FormatInfo

# exponent bits, mantissa bits, bias, specials; ladder formats and some that are not on it
LAYOUTS = {
    "e0m7": (0, 7, 1, "none"),  # gfloat counts a format without exponent as all subnormal
    "e1m6": (1, 6, 0, "none"),
    "e2m5": (2, 5, 1, "none"),
    "e3m4": (3, 4, 3, "none"),
    "e4m3": (4, 3, 7, "fn"),
    "e5m2": (5, 2, 15, "ieee"),
    "e6m1": (6, 1, 31, "none"),
    "e7m0": (7, 0, 63, "none"),
    "e3m2": (3, 2, 3, "none"),
    "e4m1fn": (4, 1, 7, "fn"),
    "e5m4": (5, 4, 15, "none"),
    "e3m0fn": (3, 0, 3, "fn"),
    "e2m3ieee": (2, 3, 1, "ieee"),
    "e4m3b11": (4, 3, 11, "none"),
}


def gfloat_info(e: int, m: int, bias: int, specials: str) -> FormatInfo:
    return FormatInfo(
        "witness",
        1 + e + m,
        m + 1,
        bias=bias,
        is_signed=True,
        domain=Domain.Extended if specials == "ieee" else Domain.Finite,
        has_nz=True,
        num_high_nans={"none": 0, "fn": 1, "ieee": 2**m - 1}[specials],
        has_subnormals=True,
        is_twos_complement=False,
    )


def exmy(build, e: int, m: int, bias: int | None, specials: str, overflow: str = "saturate"):
    return build(
        "exmy",
        exponent_bits=e,
        mantissa_bits=m,
        bias=None if e == 0 else bias,
        specials=specials,
        overflow=overflow,
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_gfloat(build, patterns, same, name: str) -> None:
    layout = LAYOUTS[name]
    fmt, info = exmy(build, *layout), gfloat_info(*layout)
    codes = np.arange(2**info.k)
    values = gfloat.decode_ndarray(info, codes)
    same(fmt.code_values().numpy(), values)
    assert (fmt.max_finite, fmt.min_positive) == (info.max, min(values[values > 0]))

    middle = values[:-1] / 2 + values[1:] / 2
    middle = middle[np.isfinite(middle)].astype(np.float32)
    sides = [np.nextafter(middle, np.float32(s)) for s in (np.inf, -np.inf)]
    x = np.concatenate([patterns, values.astype(np.float32), middle, *sides])
    x = np.concatenate([x[~np.isnan(x)], -middle]).astype(np.float64)
    given = torch.from_numpy(x)
    rounded = gfloat.round_ndarray(info, x, sat=True)
    same(fmt.round(given).numpy(), rounded)
    same(fmt.encode(given).numpy(), gfloat.encode_ndarray(info, rounded))
    if layout[3] != "none":
        special = exmy(build, *layout, overflow="special")
        same(special.round(given).numpy(), gfloat.round_ndarray(info, x, sat=False))


@pytest.mark.parametrize(
    ("dtype", "layout", "overflow"),
    [
        (ml_dtypes.float8_e5m2, (5, 2, 15, "ieee"), "special"),
        (ml_dtypes.float8_e4m3fn, (4, 3, 7, "fn"), "special"),
        (ml_dtypes.float8_e4m3, (4, 3, 7, "ieee"), "special"),
        (ml_dtypes.float8_e3m4, (3, 4, 3, "ieee"), "special"),  # largest 15.5; the ladder's is 31
        (ml_dtypes.float6_e2m3fn, (2, 3, 1, "none"), "saturate"),
        (ml_dtypes.float6_e3m2fn, (3, 2, 3, "none"), "saturate"),
        (ml_dtypes.float4_e2m1fn, (2, 1, 1, "none"), "saturate"),
        (ml_dtypes.bfloat16, (8, 7, 127, "ieee"), "special"),
        (np.float16, (5, 10, 15, "ieee"), "special"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_ml_dtypes(build, patterns, same, dtype, layout, overflow: str) -> None:
    fmt = exmy(build, *layout, overflow=overflow)
    codes = np.arange(2**fmt.bits)
    unsigned = codes.astype(np.uint16 if fmt.bits > 8 else np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        values = unsigned.view(dtype).astype(np.float32)
        same(fmt.code_values().numpy(), values)
        finite = np.sort(values[np.isfinite(values)])
        middle = (finite[:-1].astype(np.float64) / 2 + finite[1:] / 2).astype(np.float32)
        sides = [np.nextafter(middle, np.float32(s)) for s in (np.inf, -np.inf)]
        x = np.concatenate([patterns, middle, *sides])
        if layout[3] == "none":  # theirs give a number for NaN; ours keeps NaN
            x = x[~np.isnan(x)]
        same(fmt.round(torch.from_numpy(x)).numpy(), x.astype(dtype).astype(np.float32))


@pytest.mark.parametrize(
    ("dtype", "name", "overflow"),
    [
        (torch.float8_e4m3fn, "e4m3", "saturate"),
        (torch.float8_e5m2, "e5m2", "special"),
        (torch.bfloat16, "bf16", "special"),
    ],
)
def test_torch_casts(build, patterns, same, dtype: torch.dtype, name: str, overflow: str) -> None:
    fmt = build(name, overflow=overflow)
    x = torch.from_numpy(patterns)
    values = fmt.code_values()
    values = values[values.isfinite()].sort().values
    middle = values[:-1] / 2 + values[1:] / 2
    sides = [torch.nextafter(middle, torch.tensor(s)) for s in (float("inf"), float("-inf"))]
    x = torch.cat([x, middle, *sides])
    if dtype == torch.float8_e4m3fn:  # on inf, torch's versions differ
        x = x[~x.isinf()]
    want = x.to(dtype)
    same(fmt.round(x).numpy(), want.float().numpy())
    codes = want.view(torch.int16 if fmt.bits == 16 else torch.uint8).int() & (2**fmt.bits - 1)
    numbers = ~x.isnan()
    assert torch.equal(fmt.encode(x)[numbers], codes[numbers])


def test_torch_halves_through_a_16_bit_layout(build, same) -> None:
    fmt = exmy(build, 5, 10, None, "ieee", "special")
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 2.0 ** torch.arange(
        -30, 20
    ).repeat(2000)
    same(fmt.round(x).numpy(), x.half().float().numpy())
    same(fmt.encode(x).numpy(), x.half().view(torch.int16).int().numpy() & 0xFFFF)

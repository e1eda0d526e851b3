"""bf16 and fp32, the baselines."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import torch

INF, NAN = float("inf"), float("nan")
BF16_MAX = (2 - 2**-7) * 2.0**127
FP32_MAX = (2 - 2**-23) * 2.0**127


@pytest.fixture(params=["bf16", "fp32"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_facts(build) -> None:
    bf16, fp32 = build("bf16"), build("fp32")
    assert (bf16.bits, bf16.scaled, bf16.max_finite, bf16.min_positive) == (
        16,
        False,
        BF16_MAX,
        2**-133,
    )
    assert (fp32.bits, fp32.scaled, fp32.max_finite, fp32.min_positive) == (
        32,
        False,
        FP32_MAX,
        2**-149,
    )


def test_bf16_is_the_upper_half_of_a_float32(build, patterns, same) -> None:
    fmt, x = build("bf16"), torch.from_numpy(patterns)
    same(fmt.code_values().numpy(), patterns)
    finite = x[x.isfinite()]
    same(fmt.round(finite).numpy(), finite.numpy())
    codes = torch.arange(2**16)[x.isfinite()]
    assert torch.equal(fmt.encode(finite).long(), codes)
    magnitude = codes & 0x7FFF
    assert torch.equal(
        fmt.to_rung(finite).long(), torch.where(codes > 0x7FFF, -magnitude, magnitude)
    )


def test_bf16_rounds_by_the_definition(build, same) -> None:
    # round half to even on the bit pattern, written out in integers
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    bits = np.concatenate([bits, (bits & 0xFFFF0000) | 0x8000, bits & 0x0001FFFF])
    x = bits.view(np.float32)
    keep = np.isfinite(x) & (np.abs(x) < BF16_MAX)
    bits, x = bits[keep].astype(np.uint64), x[keep]
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    want = rounded.astype(np.uint32).view(np.float32)
    fmt = build("bf16")
    same(fmt.round(torch.from_numpy(x)).numpy(), want)
    same(fmt.round(torch.from_numpy(x).double()).numpy(), want)
    same(fmt.from_rung(fmt.to_rung(torch.from_numpy(x))).numpy() + 0.0, want + 0.0)


def test_saturate_or_special(build, name: str) -> None:
    largest = BF16_MAX if name == "bf16" else FP32_MAX
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([INF, -INF, NAN, -0.0, largest], dtype=dtype)
        got = build(name).round(x)
        assert got[:2].tolist() == [largest, -largest]
        assert got[2].isnan()
        assert math.copysign(1, got[3]) == -1
        assert build(name, overflow="special").round(x)[:2].tolist() == [INF, -INF]
    beyond = torch.tensor(largest * 1.01, dtype=torch.float64)
    assert build(name).round(beyond) == largest
    assert build(name, overflow="special").round(beyond) == INF


def test_a_float64_is_not_rounded_twice(build) -> None:
    # just above the midpoint of 1 and 1 + 2^-7; the nearest float32 is the midpoint itself
    x = torch.tensor(1 + 2**-8 + 2**-40, dtype=torch.float64)
    assert x.to(torch.bfloat16) == 1  # torch's cast goes by way of float32
    assert build("bf16").round(x) == 1 + 2**-7
    assert build("bf16").to_rung(x) == build("bf16").to_rung(torch.tensor(1.0)) + 1
    y = torch.tensor(1 + 2**-24 + 2**-50, dtype=torch.float64)
    assert build("fp32").round(y).item() == 1 + 2**-23


def test_16_bit_inputs(build) -> None:
    x = torch.tensor([1.0009765625, -2.5])
    bf16, fp32 = build("bf16"), build("fp32")
    assert bf16.round(x.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(TypeError, match="float16 cannot hold"):
        bf16.round(x.half())
    for half in (x.half(), x.bfloat16()):
        assert torch.equal(fp32.round(half), half)
        with pytest.raises(TypeError, match="cannot hold"):
            fp32.ulp(half)


def test_rounding_gives_a_new_tensor(build, name: str) -> None:
    for overflow in ("saturate", "special"):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.ones(3, dtype=dtype)
            build(name, overflow=overflow).round(x).zero_()
            assert torch.equal(x, torch.ones(3, dtype=dtype))


def test_fp32_codes_and_rungs_are_its_bits(build) -> None:
    fmt = build("fp32")
    values = [0.0, -0.0, 1.0, -1.0, 2**-149, -(2**-126), FP32_MAX, math.pi]
    bits = [struct.unpack("<I", struct.pack("<f", v))[0] for v in values]
    x = torch.tensor(values)
    assert fmt.encode(x).tolist() == bits
    assert torch.equal(fmt.decode(torch.tensor(bits)), x)
    assert fmt.decode(torch.tensor(bits)).signbit().tolist() == x.signbit().tolist()
    rungs = [b if b < 2**31 else 2**31 - b for b in bits]
    assert fmt.to_rung(x).tolist() == rungs
    assert torch.equal(fmt.from_rung(torch.tensor(rungs)), x)
    assert fmt.from_rung(torch.tensor([2**31 - 1, -(2**31)])).tolist() == [FP32_MAX, -FP32_MAX]
    assert fmt.encode(torch.tensor([NAN])).tolist() == [0x7FC00000]
    assert fmt.decode(torch.tensor([0x7F800001])).isnan().all()
    for code in (-1, 2**32):
        with pytest.raises(ValueError, match="codes from 0 to 4294967295"):
            fmt.decode(torch.tensor([code]))


def test_fp32_codes_cannot_be_listed(build) -> None:
    with pytest.raises(NotImplementedError, match=r"2\^32 codes"):
        build("fp32").code_values()


def test_ulp_is_the_gap_to_the_next_float(build) -> None:
    x = torch.tensor([0.0, 1.0, -1.0, 1.9999, 2.0, 2**-126, 2**-149, 3e-39, -3e38, 0.7])
    up = torch.nextafter(x.abs(), torch.tensor(INF))
    assert torch.equal(build("fp32").ulp(x), up - x.abs())
    assert build("bf16").ulp(x[:5]).tolist() == [2**-133, 2**-7, 2**-7, 2**-7, 2**-6]
    assert build("bf16").ulp(torch.tensor([INF, NAN]))[0] == 2.0**120


def test_stochastic_rounding_of_bf16_is_exactly_proportional(build) -> None:
    fmt = build("bf16")
    x = torch.full((200_000,), 1 + 2**-7 * 0.25)
    got = fmt.round(x, "stochastic", torch.Generator().manual_seed(0))
    assert set(got.tolist()) == {1.0, 1 + 2**-7}
    # 5 standard errors of a binomial share of 1/4
    assert abs((got > 1).double().mean() - 0.25) < 5 * (0.25 * 0.75 / 200_000) ** 0.5

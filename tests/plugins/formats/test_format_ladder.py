"""The ladder against its definition: every code, every bfloat16, every midpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

LADDER = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]

# largest, smallest positive, smallest normal, ULP at zero, ULP at the largest value
FACTS = {
    "e0m7": (127 / 128, 1 / 128, None, 1 / 128, 1 / 128),
    "e1m6": (3.96875, 1 / 32, 2.0, 1 / 32, 1 / 32),
    "e2m5": (7.875, 1 / 32, 1.0, 1 / 32, 1 / 8),
    "e3m4": (31.0, 1 / 64, 1 / 4, 1 / 64, 1.0),
    "e4m3": (448.0, 2**-9, 2**-6, 2**-9, 32.0),
    "e5m2": (57344.0, 2**-16, 2**-14, 2**-16, 8192.0),
    "e6m1": (6442450944.0, 2**-31, 2**-30, 2**-31, 2.0**31),
    "e7m0": (2.0**64, 2**-62, 2**-62, 2**-62, 2.0**64),
}
DISTINCT = {"e4m3": 253, "e5m2": 247}


@pytest.fixture(params=LADDER)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_facts(build, name: str) -> None:
    fmt = build(name)
    largest, smallest, normal, ulp_at_zero, ulp_at_largest = FACTS[name]
    assert (fmt.name, fmt.bits, fmt.scaled) == (name, 8, True)
    assert (fmt.max_finite, fmt.min_positive) == (largest, smallest)
    assert fmt.facts()["smallest normal"] == normal
    ends = torch.tensor([0.0, largest, float("inf"), -largest])
    at_largest = ulp_at_largest
    assert fmt.ulp(ends).tolist() == [ulp_at_zero, at_largest, at_largest, at_largest]
    values = fmt.code_values()
    assert len(values[values.isfinite()].unique()) == DISTINCT.get(name, 255)


def test_every_code(build, reference, same, name: str) -> None:
    fmt, want = build(name), reference(name).values
    codes = torch.arange(256)
    same(fmt.code_values().numpy(), want)
    same(fmt.decode(codes).numpy(), want)
    numbers = np.isfinite(want)
    same(fmt.encode(torch.from_numpy(want[numbers])).numpy(), codes.numpy()[numbers])
    rungs = np.where(codes < 128, codes, 128 - codes)[numbers]
    values = torch.from_numpy(want[numbers]).float()
    same(fmt.to_rung(values).numpy(), rungs)
    same(fmt.from_rung(torch.from_numpy(rungs)).numpy() + 0.0, want[numbers] + 0.0)


def test_rounding_of_every_bfloat16(build, reference, patterns, same, name: str) -> None:
    same(build(name).round(torch.from_numpy(patterns)).numpy(), reference(name).round(patterns))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_beside_every_midpoint(build, reference, same, name: str, dtype) -> None:
    fmt, x = build(name), reference(name).probes()
    got = fmt.round(torch.from_numpy(x).to(dtype))
    assert got.dtype == dtype
    same(got.numpy(), reference(name).round(x))


@pytest.mark.parametrize("special", ["e4m3", "e5m2"])
def test_overflow_to_the_special_value(build, reference, patterns, same, special: str) -> None:
    fmt = build(special, overflow="special")
    x = np.concatenate([patterns, reference(special).probes()])
    same(fmt.round(torch.from_numpy(x)).numpy(), reference(special).round(x, "special"))


def test_the_last_tie_goes_to_the_even_code(build) -> None:
    # 464 lies between 448 (code 0x7E, even) and 480, which is NaN; 61440 between 57344 (0x7B) and inf
    e4m3, e5m2 = build("e4m3", overflow="special"), build("e5m2", overflow="special")
    assert e4m3.round(torch.tensor([464.0, -464.0])).tolist() == [448.0, -448.0]
    assert e4m3.round(torch.tensor([464.00003, float("inf")])).isnan().all()
    assert e5m2.round(torch.tensor([61439.996, 61440.0, -61440.0])).tolist() == [
        57344.0,
        float("inf"),
        float("-inf"),
    ]


def test_to_rung_is_the_rung_of_the_rounding(build, patterns, name: str) -> None:
    fmt, x = build(name), torch.from_numpy(patterns)
    rungs = fmt.to_rung(x)
    assert rungs.dtype == torch.int32
    rounded = fmt.round(x)
    assert torch.equal(fmt.from_rung(rungs) + 0.0, rounded.nan_to_num(0.0) + 0.0)


def test_ulp_is_the_distance_between_codes(build, reference, name: str) -> None:
    fmt, magnitudes = build(name), reference(name).magnitudes
    x = np.concatenate([magnitudes[:-1], (magnitudes[:-1] + magnitudes[1:]) / 2])
    want = np.tile(np.diff(magnitudes), 2)
    for sign in (1, -1):
        got = fmt.ulp(torch.from_numpy(sign * x))
        np.testing.assert_array_equal(got.numpy(), want)
    assert fmt.ulp(torch.tensor(float("nan"))).isnan()


def test_e0m7_and_e1m6_are_one_grid(build, patterns) -> None:
    e0m7, e1m6 = build("e0m7"), build("e1m6")
    assert torch.equal(e0m7.code_values() * 4, e1m6.code_values())
    x = torch.from_numpy(patterns)
    x = x[x.isfinite() & (x.abs() < 2.0**100)]
    assert torch.equal(e0m7.round(x) * 4, e1m6.round(4 * x))
    assert torch.equal(e0m7.to_rung(x), e1m6.to_rung(4 * x))
    assert torch.equal(e0m7.ulp(x) * 4, e1m6.ulp(4 * x))


def test_without_mantissa_bits_ties_go_to_the_even_code(build) -> None:
    fmt = build("e7m0")
    # code of 2^e is e + 63: 1 has the odd code 63, 2 has 64, 4 has 65
    x = torch.tensor([1.5, 3.0, 6.0, -1.5, -3.0, 2.0**-63, 1.5 * 2.0**-62])
    assert fmt.round(x).tolist() == [2.0, 2.0, 8.0, -2.0, -2.0, 0.0, 2.0**-61]
    assert fmt.encode(fmt.round(x)).tolist() == [64, 64, 66, 192, 192, 0, 2]


def test_a_float64_is_not_rounded_twice(build, name: str) -> None:
    fmt = build(name)
    one, two = fmt.from_rung(torch.tensor([101, 102])).double()
    middle = (one + two) / 2
    for nudge in (1e-12, -1e-12):
        x = middle * (1 + nudge)
        assert x.float() == middle.float()  # by way of float32 it would be the tie
        assert fmt.round(x) == (two if nudge > 0 else one)
        assert fmt.to_rung(x) == (102 if nudge > 0 else 101)


def test_16_bit_inputs(build, patterns, name: str) -> None:
    fmt, x = build(name), torch.from_numpy(patterns)
    got = fmt.round(x.bfloat16())
    assert got.dtype == torch.bfloat16
    assert torch.equal(got.float().nan_to_num(7.5), fmt.round(x).nan_to_num(7.5))
    half = torch.randn(1000).half()
    if name in ("e6m1", "e7m0"):
        for call in (fmt.round, fmt.ulp):
            with pytest.raises(TypeError, match=r"torch\.float16 cannot hold.*x\.float\(\)"):
                call(half)
    else:
        assert torch.equal(fmt.round(half).float(), fmt.round(half.float()))
        assert fmt.ulp(half).dtype == torch.float16
    assert torch.equal(fmt.to_rung(half), fmt.to_rung(half.float()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_bits_and_never_waits(build, reference, patterns, same, name) -> None:
    fmt = build(name)
    host = torch.from_numpy(np.concatenate([patterns, reference(name).probes()]))
    x, rungs = host.cuda(), torch.arange(-200, 200, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = fmt.round(x), fmt.ulp(x), fmt.to_rung(x), fmt.from_rung(rungs)
        fmt.round(x, "stochastic", generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    wants = fmt.round(host), fmt.ulp(host), fmt.to_rung(host), fmt.from_rung(rungs.cpu())
    for got, want in zip(results, wants, strict=True):
        same(got.cpu().numpy(), want.numpy())

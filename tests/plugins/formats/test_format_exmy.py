"""The parametric format: any layout, against its definition; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from altgrad_core.registry.build import load_format
from altgrad_plugins.formats.settings import ExMySettings


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int, str]:
    e = draw(st.integers(0, 8))
    m = draw(st.integers(0, 10 - e) if e < 8 else st.integers(0, 2))
    if e + m == 0:
        m = 1
    standard = 2 ** (e - 1) - 1 if e else 0
    bias = standard + draw(st.integers(-20, 20)) if 0 < e < 7 else standard
    specials = draw(st.sampled_from(["none", "fn", "ieee"]))
    if specials == "ieee" and (e == 0 or m == 0):
        specials = "none"
    if specials == "none" and e == 8:
        specials = "fn"  # its highest exponent, 128, is beyond float32
    if specials == "fn" and (e + m == 1 or (e == 8 and m > 0)):
        specials = "none" if e + m == 1 else "ieee"
    return e, m, bias, specials


@settings(max_examples=60, deadline=None)
@given(layout=layouts(), overflow=st.sampled_from(["saturate", "special"]))
def test_any_layout_by_its_definition(build, reference, same, layout, overflow: str) -> None:
    e, m, bias, specials = layout
    if specials == "none":
        overflow = "saturate"
    fmt = build(
        "exmy",
        exponent_bits=e,
        mantissa_bits=m,
        bias=bias if e else None,
        specials=specials,
        overflow=overflow,
    )
    ref = reference(*layout)
    same(fmt.code_values().numpy(), ref.values)
    x = ref.probes()
    want = ref.round(x, overflow)
    for dtype in (torch.float32, torch.float64):
        same(fmt.round(torch.from_numpy(x).to(dtype)).numpy(), want)
    numbers = torch.from_numpy(x[~np.isnan(x)])
    rungs = fmt.to_rung(numbers)
    saturated = ref.round(numbers.numpy())
    same(fmt.from_rung(rungs).numpy() + 0.0, saturated + 0.0)
    index = np.searchsorted(ref.magnitudes, np.abs(saturated))
    np.testing.assert_array_equal(rungs.abs().numpy(), index)


def test_the_ladder_is_exmy(build) -> None:
    for e in range(8):
        specials = {4: "fn", 5: "ieee"}.get(e, "none")
        fmt = build("exmy", exponent_bits=e, mantissa_bits=7 - e, specials=specials)
        ladder = build(f"e{e}m{7 - e}")
        assert fmt.name == "exmy"
        assert fmt.numbers == ladder.numbers
        values = fmt.code_values(), ladder.code_values()
        assert torch.equal(values[0].nan_to_num(0.1), values[1].nan_to_num(0.1))


def test_bias_moves_the_range_and_nothing_else(build) -> None:
    here = build("exmy", exponent_bits=4, mantissa_bits=3)
    there = build("exmy", exponent_bits=4, mantissa_bits=3, bias=7 + 5)
    assert torch.equal(here.code_values(), there.code_values() * 32)
    assert (here.max_finite, there.max_finite) == (480.0, 15.0)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"exponent_bits": 8, "mantissa_bits": 8}, "make 17 bits"),
        ({"exponent_bits": 0, "mantissa_bits": 0}, "make 1 bits"),
        ({"exponent_bits": -1, "mantissa_bits": 4}, "no negative number"),
        ({"exponent_bits": 0, "mantissa_bits": 7, "bias": 3}, "leave bias out"),
        ({"exponent_bits": 5, "mantissa_bits": 0, "specials": "ieee"}, "one mantissa bit"),
        ({"exponent_bits": 1, "mantissa_bits": 0, "specials": "fn"}, "no positive number"),
        ({"exponent_bits": 8, "mantissa_bits": 3}, "must be float32 values"),
        ({"exponent_bits": 4, "mantissa_bits": 3, "bias": 160}, "must be float32 values"),
        ({"exponent_bits": 9, "mantissa_bits": 3}, "must be float32 values"),
        ({"exponent_bits": 3, "mantissa_bits": 4, "overflow": "special"}, "NaN or inf"),
        ({"exponent_bits": 3, "mantissa_bits": 4, "specials": "nan"}, "'none', 'fn' or 'ieee'"),
        ({"exponent_bits": 3}, "Field required"),
        ({"exponent_bits": 3, "mantissa_bits": 4, "exponentbias": 1}, "Extra inputs"),
    ],
)
def test_what_is_refused(given_settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ExMySettings.model_validate(given_settings)


def test_the_ends_of_float32_are_reached(build) -> None:
    low = build("exmy", exponent_bits=2, mantissa_bits=2, bias=1 + 147 - 0)
    assert low.min_positive == 2**-149
    x = torch.tensor([2**-149, 3 * 2**-149, 2**-147])
    assert torch.equal(low.round(x), x)
    assert torch.equal(low.ulp(x), torch.full((3,), 2**-149))
    high = build("exmy", exponent_bits=2, mantissa_bits=2, bias=3 - 127)
    assert high.max_finite == 1.75 * 2.0**127
    assert high.round(torch.tensor(3.4e38)) == high.max_finite


def test_whoever_writes_into_the_code_values_changes_nobody_elses() -> None:
    fmt = load_format("exmy", exponent_bits=2, mantissa_bits=3)
    mine = fmt.code_values()
    kept = mine.clone()
    mine.zero_()
    assert torch.equal(fmt.code_values(), kept)
    other = load_format("exmy", exponent_bits=2, mantissa_bits=3, bias=4)
    assert not torch.equal(other.code_values(), kept)
